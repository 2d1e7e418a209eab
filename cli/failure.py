"""What a user sees when a command fails: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from costroute_rt.error import CostrouteError

CANCELLED = 130


def say(text: str) -> None:
    """Prints to stderr, where everything goes that is not the result."""
    click.echo(text, err=True)


def say_error(problem: object) -> None:
    say("error: " + " ".join(str(problem).split()))


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

        traceback.print_exception(error)
    if isinstance(error, CostrouteError):
        say_error(with_command(error))
        return error.exit_code
    if isinstance(error, OSError):
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


def _describe(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    remedy = " (free some space)" if error.errno == errno.ENOSPC else ""
    return f"{name}{error.strerror or error}{remedy}"


def _help_hint(error: click.UsageError) -> str:
    return f" ({error.ctx.command_path} --help)" if error.ctx else ""


class ReportingGroup(click.Group):
    """A group whose failures are one line on stderr instead of click's several."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files and prompts may contain what a console cannot show
        sys.exit(exit_code_of(lambda: super(ReportingGroup, self).main(*args, **kwargs)))
