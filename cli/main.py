"""The `costroute-rt` command: its groups and commands put together."""

from __future__ import annotations

import logging

import click

from costroute_rt.cli.build_engines import build_engines
from costroute_rt.cli.doctor import doctor
from costroute_rt.cli.engines import engines
from costroute_rt.cli.eval_router import eval_router
from costroute_rt.cli.export import export
from costroute_rt.cli.failure import ReportingGroup, reserve_streams
from costroute_rt.cli.fit_router import fit_router
from costroute_rt.cli.gen import gen
from costroute_rt.cli.info import info
from costroute_rt.cli.label import label
from costroute_rt.cli.pool import pool
from costroute_rt.cli.profile import profile
from costroute_rt.cli.route import route
from costroute_rt.cli.serve import serve
from costroute_rt.cli.text import check_texts
from costroute_rt.plain_text import one_line, printable


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


for command in (gen, route, serve, export, pool, build_engines, engines, profile, label, fit_router, eval_router, info, doctor):
    cli.add_command(command)
check_texts(cli)


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
