"""The `costroute-rt` command: its groups and commands put together."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click

from costroute_rt.cli.failure import ReportingGroup, reserve_streams
from costroute_rt.cli.text import check_texts
from costroute_rt.plain_text import one_line, printable

COMMANDS = (
    *("gen", "route", "serve", "export", "pool", "build-engines", "engines"),
    *("profile", "label", "fit-router", "eval-router", "info", "doctor"),
)
"""Each is a function in the file of its name."""


class Commands(MutableMapping[str, click.Command]):
    """Commands by name, each imported when it is first asked for: one that runs does not wait for the others."""

    def __init__(self) -> None:
        self._found: dict[str, click.Command | None] = dict.fromkeys(COMMANDS)

    def __getitem__(self, name: str) -> click.Command:
        found = self._found[name]
        if found is None:
            attribute = name.replace("-", "_")
            command: click.Command = getattr(import_module(f"costroute_rt.cli.{attribute}"), attribute)
            check_texts(command)
            found = self._found[name] = command
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@click.group(
    cls=ReportingGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="costroute-rt", prog_name="costroute-rt", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Text to image within a time budget, on this machine.

    Every prompt goes to the candidate (a compiled denoiser, a number of steps, a decoder) expected to serve it best
    within the milliseconds you allow. Results go to stdout, everything else to stderr.

    \b
    costroute-rt gen "a red house by a lake at sunset" --max-ms 800 -o postcard.png

    Exit codes: 0 done; 1 other failure; 2 wrong option, value or prompt; 3 nothing fits the budget; 4 bundle broken;
    5 engine missing, damaged or wrong; 6 backend or provider missing; 7 output cannot be written; 8 runtime closed;
    9 queue full; 130 cancelled.
    With a file of prompts: the code of the first line that failed, or of what ended the run.

    Engines are kept in the user cache directory; COSTROUTE_HOME moves them, and COSTROUTE_EXTRA_STORES names
    directories of engines to use beside them. COSTROUTE_BACKEND names the backend that `--backend auto` stands for.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.commands = Commands()


class PlainFormatter(logging.Formatter):
    """Messages in one line, without control characters: names of anybody's files in them must not look like other messages."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep_lines=True)


def main() -> None:
    # What a runtime assumes is logged for applications; commands print it with the command that measures again.
    logging.getLogger("costroute_rt.family.assembly").setLevel(logging.ERROR)
    if logging.lastResort is not None:  # the handler that prints warnings where logging is not configured
        logging.lastResort.setFormatter(PlainFormatter())
    reserve_streams()
    cli(prog_name="costroute-rt")
