"""What a user sees when a command fails: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.plain_text import one_line, printable

if TYPE_CHECKING:
    from costroute_rt.error import CostrouteError

CANCELLED = 130


OUTPUT_LOST = 7
_UNDECODED = re.compile(r"[\udc80-\udcff]|\\udc[89a-f][0-9a-f]")
"""Bytes of names that are not in the locale's encoding, as Python keeps them, and as it shows them in quotes."""
_HALF = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")
"""Half of a character in UTF-16 that stands for no byte."""
TOLERANT = {"backslashreplace", "namereplace", "replace", "xmlcharrefreplace", "ignore"}
"""Error handlers of text streams that can write any text."""


def say(text: str, *, keep_lines: bool = False) -> None:
    """Prints to stderr, where everything goes that is not the result; does nothing if stderr cannot be written.

    Control characters are escaped and lines are joined, because the text may hold names of anybody's files.
    keep_lines: print several lines.
    """
    with suppress(OSError):
        click.echo(printable(text, keep_lines=True) if keep_lines else one_line(text), err=True)


def say_error(problem: object) -> None:
    text = " ".join(str(problem).split())
    undecoded = _UNDECODED.search(text)
    if undecoded is not None:
        shown, encoding = undecoded.group().encode("ascii", "backslashreplace").decode(), sys.getfilesystemencoding().upper()
        text += f" ({shown} stands for a byte of a name that is not {encoding}, the encoding of this locale)"
    say(f"error: {text}")


def error_json(error: CostrouteError | OSError) -> dict[str, Any]:
    """An error as plain data."""
    kind, reason = type(error).__name__, getattr(error, "reason", None)
    return {"type": kind, "reason": reason and reason.value, "exit_code": exit_code(error), "message": describe(error)}


def exit_code(error: CostrouteError | OSError) -> int:
    return 1 if isinstance(error, OSError) else error.exit_code


def describe(error: CostrouteError | OSError) -> str:
    """What failed, what was found and what to do about it, in one line."""
    return " ".join((_describe(error) if isinstance(error, OSError) else with_command(error)).split())


def exit_code_of(run: Callable[[], Any]) -> int:
    """Runs a command and returns its exit code, having reported any failure on stderr."""
    try:
        code = run()
    except (click.exceptions.Abort, KeyboardInterrupt):
        say_error("cancelled")
        return CANCELLED
    except click.UsageError as error:
        say_error(error.format_message() + _help_hint(error))
        return error.exit_code
    except click.ClickException as error:
        say_error(error.format_message())
        return error.exit_code
    except Exception as error:
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    """Reports an error that reached the top: one of ours, the system's, or a bug."""
    from costroute_rt.engines.machine.installation import explain
    from costroute_rt.error import CostrouteError

    if os.environ.get("COSTROUTE_TRACEBACK"):
        import traceback

        say("".join(traceback.format_exception(error)).rstrip(), keep_lines=True)
    if isinstance(error, CostrouteError):
        say_error(with_command(error))
        return error.exit_code
    if isinstance(error, OSError):
        if _is_about_stdout(error):
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  or the interpreter would try to print it at its end
            say_error(f"cannot write standard output: {error.strerror or error}")
            return OUTPUT_LOST
        say_error(_describe(error))
    elif isinstance(error, MemoryError):
        say_error("out of memory")
    elif damage := explain(error):
        say_error(with_command(damage))
        return damage.exit_code
    else:
        say_error(f"unexpected {type(error).__name__}: {error} (a bug; COSTROUTE_TRACEBACK=1 shows where, please report it)")
    return 1


def with_command(error: CostrouteError) -> str:
    """The error's text, and the command that helps in parentheses."""
    from costroute_rt.cli.command import command_for

    command = command_for(error)
    return f"{error} ({command})" if command else str(error)


def _is_about_stdout(error: OSError) -> bool:
    """Whether the error was raised when something was printed; errors of printing to stderr are ignored."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__") == "click.utils"


def reserve_streams() -> None:
    """Opens what the caller closed of standard input, output and error as the null device.

    Otherwise the next file that is opened, an image for example, would get the number of stderr, and what libraries print to it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def _describe(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    remedy = " (free some space)" if error.errno == errno.ENOSPC else ""
    return f"{name}{error.strerror or error}{remedy}"


def _help_hint(error: click.UsageError) -> str:
    return f" ({error.ctx.command_path} --help)" if error.ctx else ""


class ReportingGroup(click.Group):
    """A group whose failures are one line on stderr instead of click's several."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for each in args:  # neither is possible from a shell; click raises ValueError for it in paths
            if "\0" in each:
                raise click.UsageError("arguments must not contain NUL characters", ctx)
            half = _HALF.search(each) if os.name != "nt" else None  # file names of Windows may have them
            if half is not None:
                raise click.UsageError(f"arguments must not contain half of a character, such as U+{ord(half[0]):04X}", ctx)
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        if sys.stdin is None:  # standard input is closed
            sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  (for as long as the program runs)
        if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors not in TOLERANT:
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files and prompts may contain what a console cannot show
        sys.exit(exit_code_of(lambda: super(ReportingGroup, self).main(*args, **kwargs)))
