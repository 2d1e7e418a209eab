"""`costroute-rt gen`: from a prompt, or a file of them, to image files."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING

import click

from costroute_rt.cli import option
from costroute_rt.cli.batch import make_file
from costroute_rt.cli.budget import Budget, check_budget
from costroute_rt.cli.choice import EngineChoice, ImageChoice
from costroute_rt.cli.making import Environment, make_images
from costroute_rt.cli.number import Number, WholeNumber
from costroute_rt.cli.output import LAST_SEED, Job, Names, draw_seed
from costroute_rt.cli.progress import Status, building_notice, step_bar
from costroute_rt.cli.report import Report
from costroute_rt.cli.resume import Wanted

if TYPE_CHECKING:
    from costroute_rt.runtime import Runtime


@click.command()
@click.argument("prompt", required=False)
@click.option("--prompts", type=click.Path(), metavar="FILE", help="Images of each line of FILE, UTF-8 text (-: standard input).")
@click.option("--total-s", type=Number(min=0, min_open=True), help="With --prompts: seconds for all lines, divided by need.")
@click.option("--mean-ms", type=Number(min=0, min_open=True), help="With --prompts: --total-s as milliseconds per line.")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="PATH",
    help="PNG, JPEG or WebP file, folder, or pattern of {slug} {seed} {line} {index}.  [default: {slug}-{seed}.png]",
)
@click.option("--seed", type=WholeNumber(0, LAST_SEED), help="The same seed gives the same image.  [default: random]")
@click.option("--overwrite", is_flag=True, help="With --prompts: make existing images again, and replace other files.")
@click.option("--no-build", is_flag=True, help="Fail if engines are missing instead of building them.")
@option.image
@option.allowed
@option.memory
@option.engine
@option.as_json("Print one JSON object for each image and each failed line, one a line.")
def gen(
    prompt: str | None,
    prompts: str | None,
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

    In FILE, blank lines and lines that start with "# " are skipped; "#sunset" is a prompt. If the same command runs
    again, images whose settings are still the wanted ones are kept, and all others are made. A line that fails is
    reported and the others go on; lines refused because the machine is busy are tried again at the end. The exit code
    is 0 if every line has its images, else that of the first failed line. What would fail for every line ends the run.

    \b
    costroute-rt gen "a red house by a lake at sunset" --max-ms 800 -o postcard.png
    costroute-rt gen "a snowy mountain at night" --count 4 --seed 7 -o night.webp
    costroute-rt gen "a snowy lake" --init-image lake.jpg --strength 0.6 --mask sky.png
    costroute-rt gen --prompts lines.txt --max-ms 500 -o postcards/
    costroute-rt gen --prompts lines.txt --total-s 60 -o postcards/
    """
    if (prompt is None) == (prompts is None):
        raise click.UsageError("give either PROMPT or --prompts FILE", click.get_current_context())
    check_budget(total_s, mean_ms, has_file=prompts is not None, image=image)
    image = image.with_images()
    _check_request(prompt, image, seed)
    names = Names.of(output, count=image.count, many=prompts is not None)
    # Without anything that weighs time, only the engines of the chosen candidate are loaded.
    preload = any((total_s, mean_ms, image.max_ms, image.lam, image.tolerance))
    with ExitStack() as stack:

        @cache
        def open_runtime() -> Runtime:
            notice = building_notice("first use: building")
            return stack.enter_context(
                engine.open_runtime(notice, build=not no_build, preload=preload, init_images=image.init_image is not None)
            )

        environment = Environment(open_runtime=open_runtime, clock=time.perf_counter, sleep=time.sleep)
        if prompt is not None:
            _make_prompt(prompt, image, names, environment, seed=seed, as_json=as_json)
        elif prompts is not None:
            is_timed = any((total_s, mean_ms, image.max_ms))
            wanted = None if overwrite else Wanted.of(engine.open_pool(verify=False), image, is_timed=is_timed)
            budget = Budget(total_s=total_s, mean_ms=mean_ms, clock=environment.clock) if total_s or mean_ms else None
            code = make_file(prompts, image, names, wanted, environment, seed=seed, budget=budget, as_json=as_json)
            if code:
                raise click.exceptions.Exit(code)


def _check_request(prompt: str | None, image: ImageChoice, seed: int | None) -> None:
    """Raises, before any work, what would be wrong with every image."""
    from costroute_rt.error import ConfigError
    from costroute_rt.request import MOST_IMAGES, check_prompt, check_text

    if prompt is not None:
        check_prompt(prompt)
    if image.negative_prompt is not None:
        check_text("negative prompt", image.negative_prompt)
    if image.count > MOST_IMAGES:
        raise ConfigError("--count", image.count, f"1 to {MOST_IMAGES}; further runs make more")
    if (seed or 0) + image.count - 1 > LAST_SEED:
        raise ConfigError("--seed", seed, f"at most {LAST_SEED - image.count + 1} for {image.count} images")


def _make_prompt(prompt: str, image: ImageChoice, names: Names, environment: Environment, *, seed: int | None, as_json: bool) -> None:
    """Makes the images of a single prompt and prints a line for each."""
    job = Job(prompt=prompt, seed=draw_seed(image.count) if seed is None else seed, indices=tuple(range(image.count)))
    names.check_folder(names.path(job, 0))
    runtime = environment.open_runtime()
    report = Report(Status(environment.clock, image.count, "images"), as_json=as_json, has_lines=False)
    report.start()
    if image.count == 1:
        with step_bar("steps") as on_step:
            (made,) = make_images(runtime, job, image, names, environment.clock, on_step)
        report.made(made)
        return
    try:
        for made in make_images(runtime, job, image, names, environment.clock):
            report.made(made)
        report.end()
    except BrokenPipeError:
        raise
    except BaseException:
        report.say_partly(image.count)
        raise
