"""`costroute-rt gen`: from a prompt, or a file of them, to PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from costroute_rt.cli import option
from costroute_rt.cli.batch import Budget, check_budget
from costroute_rt.cli.choice import EngineChoice, ImageChoice
from costroute_rt.cli.failure import say, say_error
from costroute_rt.cli.number import SEED_LIMIT, Number, WholeNumber
from costroute_rt.cli.output import Job, plan_jobs
from costroute_rt.cli.progress import building_notice, step_bar
from costroute_rt.cli.table import show_json

if TYPE_CHECKING:
    from costroute_rt.result import Result
    from costroute_rt.runtime import Runtime


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "--prompts", type=click.File(encoding="utf-8-sig"), metavar="FILE", help="One image for each line of FILE (-: standard input)."
)
@click.option("--total-s", type=Number(min=0, min_open=True), help="With --prompts: seconds for all lines, divided by need.")
@click.option("--mean-ms", type=Number(min=0, min_open=True), help="With --prompts: --total-s as milliseconds per line.")
@click.option(
    "-o", "--output", metavar="PATH", help="File, folder, or pattern of {slug} {seed} {line} {index}.  [default: {slug}-{seed}.png]"
)
@click.option("--seed", type=WholeNumber(0, SEED_LIMIT - 1), help="The same seed gives the same image.  [default: random]")
@click.option("--overwrite", is_flag=True, help="With --prompts: make existing images again.")
@click.option("--no-build", is_flag=True, help="Fail if engines are missing instead of building them.")
@option.image
@option.engine
@option.as_json("Print one JSON object for each prompt, one a line.")
def gen(
    prompt: str | None,
    prompts: TextIO | None,
    total_s: float | None,
    mean_ms: float | None,
    output: str | None,
    seed: int | None,
    overwrite: bool,
    no_build: bool,
    image: ImageChoice,
    engine: EngineChoice,
    as_json: bool,
) -> None:
    """Make an image of PROMPT within a time budget.

    The candidate with the best expected quality among those that fit --max-ms is used. The budget covers everything
    from the prompt to the pixels in memory, but not starting the program and writing the file. The first call builds
    the engines for this machine. A missed budget is reported; the image is written nevertheless.

    With --total-s or --mean-ms one budget serves a whole file: prompts that gain from it get more time than others, and
    the rest is divided again as images are done. It runs from the first prompt to the last file written.

    \b
    costroute-rt gen "a red house by a lake at sunset" --max-ms 800 -o postcard.png
    costroute-rt gen "a snowy mountain at night" --count 4 --seed 7 -o night.png
    costroute-rt gen --prompts lines.txt --max-ms 500 -o postcards/
    costroute-rt gen --prompts lines.txt --total-s 60 -o postcards/
    """
    check_budget(total_s, mean_ms, has_file=prompts is not None, image=image)
    jobs = plan_jobs(*_read(prompt, prompts, seed, image.count), image.count, output, many=prompts is not None)
    todo = jobs if overwrite or prompts is None else [job for job in jobs if not all(path.exists() for path in job.paths)]
    if len(todo) < len(jobs):
        click.echo(f"{len(jobs) - len(todo)} of {len(jobs)} exist already (--overwrite makes them again)", err=True)
    if not todo:
        return
    # Without anything that weighs time, only the engines of the chosen candidate are loaded.
    weighs_time = any((total_s, mean_ms, image.max_ms, image.lam, image.tolerance))
    with engine.open_runtime(building_notice("first use: building"), build=not no_build, preload=weighs_time) as runtime:
        budget = Budget.start(total_s, mean_ms, len(todo))
        if budget is None:
            failed = _make_all(runtime, todo, image, as_json=as_json)
        else:
            failed = _make_planned(runtime, todo, image, budget, as_json=as_json)
    if failed:
        raise click.exceptions.Exit(failed)


def _read(prompt: str | None, prompts: TextIO | None, seed: int | None, count: int) -> tuple[list[tuple[int, str]], list[int]]:
    """The numbered prompts, and a seed for each."""
    if prompt is not None and prompts is None:
        numbered = [(1, prompt)]
    elif prompt is None and prompts is not None:
        numbered = _read_lines(prompts)
    else:
        raise click.UsageError("give either PROMPT or --prompts FILE", click.get_current_context())
    if (seed or 0) + count > SEED_LIMIT:
        raise click.UsageError(f"the seeds of {count} images go beyond {SEED_LIMIT - 1}", click.get_current_context())
    from random import SystemRandom

    return numbered, [SystemRandom().randrange(SEED_LIMIT - count + 1) if seed is None else seed for _ in numbered]


def _read_lines(file: TextIO) -> list[tuple[int, str]]:
    """Lines that hold a prompt, with their numbers; blank ones and those that start with # are left out."""
    from costroute_rt.error import ConfigError

    source = getattr(file, "name", "standard input")
    try:
        lines = [(number, line.strip()) for number, line in enumerate(file, 1)]
    except UnicodeDecodeError as error:
        raise ConfigError("--prompts", source, "a text file in UTF-8") from error
    except OSError as error:
        raise ConfigError("--prompts", source, f"a file that can be read ({error.strerror})") from error
    numbered = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not numbered:
        raise ConfigError("--prompts", source, "a file with at least one prompt")
    return numbered


def _make_all(runtime: Runtime, jobs: Sequence[Job], image: ImageChoice, *, as_json: bool) -> int:
    """Generates every job; among several, a prompt that cannot be used is reported and skipped. Returns the exit code."""
    from costroute_rt.error import PromptError

    failed = 0
    for job in jobs:
        try:
            _make(runtime, job, image, as_json=as_json, with_bar=len(jobs) == 1)
        except PromptError as error:
            if len(jobs) == 1:
                raise
            say_error(f"line {job.line}: {error}")
            failed = error.exit_code
    return failed


def _make_planned(runtime: Runtime, jobs: Sequence[Job], image: ImageChoice, budget: Budget, *, as_json: bool) -> int:
    """`_make_all` within one budget for all jobs."""
    usable, failed = budget.judge(runtime, jobs, image)
    shares = budget.shares(runtime, [route for _, route in usable], image)
    for (job, _), share in zip(usable, shares, strict=True):
        _make(runtime, job, share, as_json=as_json, with_bar=len(jobs) == 1)
    if usable:
        say(budget.describe(len(usable)))
    return failed


def _make(runtime: Runtime, job: Job, image: ImageChoice, *, as_json: bool, with_bar: bool) -> None:
    with step_bar("steps", hidden=not with_bar) as on_step:
        result = image.generate(runtime, job.prompt, job.seed, on_step)
    for index, path in enumerate(job.paths):
        _save(result, path, index)
    if result.truncated:
        say("note: the prompt is longer than the text encoder reads; its end was left out")
    judgement = result.route.judgement
    if judgement is not None and judgement.note and len(result.route.options) > 1:
        say(f"note: {judgement.note}")
    if as_json:
        show_json({**result.to_json(), "outputs": [str(path) for path in job.paths]}, indent=None)
    else:
        click.echo(_describe(result, job))


def _save(result: Result, path: Path, index: int) -> None:
    from costroute_rt.error import OutputError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        result.save(path, index=index)
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def _describe(result: Result, job: Job) -> str:
    """`postcard.png: postcard-base@8, seed 7, 512 ms (predicted 498), budget 800 ms met`."""
    names = ", ".join(map(str, job.paths))
    text = f"{names}: {result.route.chosen.name}, seed {result.seed}, {result.actual_ms:.0f} ms (predicted {result.predicted_ms:.0f})"
    if result.fallback is not None:
        text += f", on {result.settings['backend']} {result.settings['provider']} as a fallback"
    if result.replanned:
        text += f", {result.replanned} steps dropped to keep the deadline"
    if result.met is None:
        return text
    return f"{text}, budget {result.route.max_ms:.0f} ms {'met' if result.met else 'missed'}"
