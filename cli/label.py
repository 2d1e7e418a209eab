"""`costroute-rt label`: a table of the scores of each candidate for each prompt, to fit a router to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice
from costroute_rt.cli.failure import say, say_error
from costroute_rt.cli.number import SEED_LIMIT, WholeNumber
from costroute_rt.cli.progress import building_notice, format_time, is_on_terminal
from costroute_rt.cli.table import show, show_json

if TYPE_CHECKING:
    from costroute_rt.export.router.labelling import Progress, Report

PIPE_EVERY_S = 60.0
PROMPT_EXIT = 2
MOST_SEEDS = 10_000


@click.command()
@click.option(
    "--prompts",
    type=click.Path(),
    metavar="FILE",
    help="CSV of prompts: column prompt, and optionally prompt_id, stated (JSON) and others, which are kept.",
)
@click.option("--labels", required=True, type=click.Path(), metavar="FILE", help="CSV to add the rows to; created if it is missing.")
@click.option("--candidate", "named", multiple=True, metavar="NAME", help="Only this candidate; may be repeated.  [default: all]")
@click.option("--seeds", type=WholeNumber(1, MOST_SEEDS), default=3, show_default=True, help="Images of each prompt by each candidate.")
@click.option(
    "--first-seed", type=WholeNumber(0, SEED_LIMIT - MOST_SEEDS), default=0, show_default=True, help="Number of the first of them."
)
@click.option(
    "--scorer", "scorers", multiple=True, metavar="NAME",
    help="postcard, or one of its parts, recall and cleanness; clip:FOLDER, pickscore:FOLDER or hps:FOLDER (a local CLIP model); "
    "aesthetic:FOLDER,HEAD.safetensors; or module:function. May be repeated: the first one's column is score, another's score_NAME.  "
    "[default: postcard]",
)  # fmt: skip
@click.option("--anchors", type=WholeNumber(min=1), metavar="N", help="Only N prompts of the table, spread over it (with --candidate).")
@option.plain_prompt
@option.memory
@option.engine
@option.as_json()
def label(
    prompts: str | None,
    labels: str,
    named: tuple[str, ...],
    seeds: int,
    first_seed: int,
    scorers: tuple[str, ...],
    anchors: int | None,
    plain_prompt: bool,
    engine: EngineChoice,
    as_json: bool,
) -> None:
    """Score every candidate on prompts, for a router to learn from.

    Each image becomes one row of the table, written before the next image begins: stop the run whenever you like, and
    the same command continues it. A new candidate needs labels on a few anchors only.

    \b
    costroute-rt label --prompts captions.csv --labels labels.csv
    costroute-rt label --prompts captions.csv --labels labels.csv --scorer clip:models/clip --scorer mine:sharpness
    costroute-rt label --prompts captions.csv --labels labels.csv --candidate new@4 --anchors 100
    """
    if anchors is None and prompts is None:
        raise click.UsageError("give --prompts FILE", click.get_current_context())
    if anchors is not None and not named:
        raise click.UsageError("--anchors needs --candidate NAME: the new candidate", click.get_current_context())
    from costroute_rt.error import ConfigError
    from costroute_rt.export.router import labelling
    from costroute_rt.export.router.prompts import read_prompts
    from costroute_rt.export.router.scorers import open_scorers

    rows = None if prompts is None else read_prompts(prompts)
    opened = engine.open_pool(verify=False)
    marks = labelling.pool_fingerprints(opened)
    if not marks:
        raise ConfigError("pool", str(opened.root), "one with a bundle: there is nothing to make images with")
    names = tuple(dict.fromkeys(named)) or tuple(marks)
    labelling.check_candidates(names, marks)
    scored = next((bundle for bundle in opened.bundles.values() if "scorer" in bundle.components), next(iter(opened.bundles.values())))
    judges = open_scorers(scorers or ("postcard",), scored)
    try:
        with engine.open_runtime(building_notice("first use: building")) as runtime, watched() as progress:
            request = labelling.Request(
                candidates=names, seeds=tuple(range(first_seed, first_seed + seeds)), scorers=tuple(judges), fingerprints=marks,
                anchors=anchors, plain_prompt=plain_prompt,
            )  # fmt: skip
            report = labelling.label_prompts(runtime, rows, labels, request, progress=progress)
    except KeyboardInterrupt:
        say(f"{labels} has every row so far: the same command continues it")
        raise
    finally:
        for judge in judges:
            judge.close()
    _show(report, labels, runtime.fallback, as_json=as_json)


@contextmanager
def watched() -> Iterator[Callable[[Progress], None]]:
    """A line with the progress: on a terminal always the same one, in a pipe a new one each minute."""
    shown_s, width, on_terminal = time.monotonic(), 0, is_on_terminal()

    def show(progress: Progress) -> None:
        nonlocal shown_s, width
        now, is_last = time.monotonic(), progress.done == progress.total
        if now - shown_s < (0.2 if on_terminal else PIPE_EVERY_S) and not is_last:
            return
        shown_s, line = now, describe(progress)
        click.echo(f"\r{line:<{width}}" if on_terminal else line, err=True, nl=not on_terminal)
        width = len(line)

    try:
        yield show
    finally:
        if width and on_terminal:
            say("")


def describe(progress: Progress) -> str:
    """`120 of 4500 rows, 15 min left`"""
    line = f"{progress.done} of {progress.total} rows"
    if progress.done == progress.total:
        return line
    return f"{line}, {format_time(progress.remaining_s)} left"


def _show(report: Report, labels: str, fallback: str | None, *, as_json: bool) -> None:
    for prompt_id, reason in report.refused.items():
        say_error(f"prompt {prompt_id}: {reason}")
    if report.truncated:
        say(f"note: {report.truncated} prompts are longer than the text encoder reads; their ends were left out")
    if as_json:
        show_json({"labels": labels, "fallback": fallback, **report.to_json()})
    else:
        show(f"{labels}: {report.written} rows added, {report.kept} existed, {report.prompts} prompts")
    if report.refused:
        raise click.exceptions.Exit(PROMPT_EXIT)
