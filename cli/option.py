"""Options that several commands share, spelled once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

import click

from costroute_rt.cli.choice import EngineChoice, ImageChoice
from costroute_rt.cli.label_choice import LabelChoice
from costroute_rt.cli.model_choice import CandidateChoice, ModelChoice, candidate_options, model_options
from costroute_rt.cli.number import Number, Size, WholeNumber

Command = TypeVar("Command", bound=Callable[..., Any])


def as_json(text: str = "Print one JSON object instead of text.") -> Callable[[Command], Command]:
    return click.option("--json", "as_json", is_flag=True, help=text)


def source(command: Command) -> Command:
    """--bundle or --pool: which models; the shipped bundle when both are left out."""
    options = (
        click.option("--pool", type=click.Path(), metavar="FOLDER", help="Pool of several bundles to use (`costroute-rt pool` makes one)."),
        click.option(
            "--bundle",
            type=click.Path(),
            metavar="FOLDER",
            help="Bundle to use.  [default: the postcard bundle that ships with costroute-rt]",
        ),
    )
    return _apply(options, command)


def allowed(command: Command) -> Command:
    """--candidates, --exclude and --license: which candidates may be used."""
    options = (
        click.option("--license", "licenses", callback=split, metavar="NAME,...", help="Use only candidates with these licences."),
        click.option("--exclude", callback=split, metavar="NAME,...", help="Do not use these candidates."),
        click.option("--candidates", callback=split, metavar="NAME,...", help="Use only these candidates."),
    )
    return _apply(options, command)


def memory(command: Command) -> Command:
    """--max-memory: a limit on the memory of the program."""
    return click.option(
        "--max-memory",
        type=Size(),
        metavar="SIZE",
        help="Memory that the program may have, such as 6GiB: engines leave and are loaded as images need them.  [default: no limit]",
    )(command)


def split(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
    """The names between commas."""
    return () if text is None else tuple(filter(None, map(str.strip, text.split(","))))


def engine(command: Callable[..., Any]) -> Callable[..., Any]:
    """--bundle, --pool, --backend, --provider, --precision, --threads and --allow-fallback, as one `engine: EngineChoice`."""
    options = (
        click.option(
            "--allow-fallback", is_flag=True, help="If that cannot run on this machine, run ONNX Runtime on the CPU, and report it."
        ),
        click.option(
            "--threads",
            type=WholeNumber(min=1),
            metavar="N",
            callback=_check_threads,
            help="Threads of each engine run.  [default: one for each physical core that this process may use]",
        ),
        click.option(
            "--precision",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="Numbers that engines compute in: float32, bfloat16, float16; auto: float16 with TensorRT, what is fastest with the "
            "backend auto, else float32.",
        ),
        click.option(
            "--provider", default="auto", show_default=True, metavar="NAME", help="Execution provider of the backend; auto: its usual one."
        ),
        click.option(
            "--backend",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="Library that runs engines: onnxruntime, openvino, tensorrt, tensorrt-rtx; auto: the fastest that "
            "`costroute-rt build-engines` found, else ONNX Runtime, or $COSTROUTE_BACKEND.",
        ),
        source,
    )
    return _apply(options, _collected(command, "engine", EngineChoice))


def _check_threads(context: click.Context, option: click.Parameter, threads: int | None) -> int | None:
    """The number, refused before any work if no engine could be opened with it."""
    if threads is None:  # the default is always usable
        return None
    from costroute_rt.engines.backends.spec import check_threads

    return check_threads(threads)


def labels(table: str, category: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--labels, --votes, --score, --rater and --category, as one `labels: LabelChoice`; help of the first and the last."""
    options = (
        click.option("--category", metavar="COLUMN", help=category),
        click.option(
            "--rater",
            metavar="COLUMN",
            help="Column with who gave each score; how much higher or lower than others each of them rates is removed.  "
            "[default: rater, if the table has it]",
        ),
        click.option(
            "--score",
            "scores",
            multiple=True,
            metavar="COLUMN[=WEIGHT]",
            help="Column of the quality. May be repeated: the mean of several columns by their weights (1 if left out), each in units "
            "of its differences between candidates.  [default: score]",
        ),
        click.option(
            "--votes",
            type=click.Path(),
            metavar="FILE",
            help="CSV of votes between two candidates, alone or beside --labels: columns prompt, candidate_a, candidate_b and winner.",
        ),
        click.option("--labels", "file", type=click.Path(), metavar="FILE", help=table),
    )
    return lambda command: _apply(options, _collected(command, "labels", LabelChoice))


def plain_prompt(command: Command) -> Command:
    """--plain-prompt: no syntax in prompts."""
    return click.option(
        "--plain-prompt", is_flag=True, help="Read prompts literally: no weights such as (word:1.2), no BREAK, and long ones are cut."
    )(command)


def size(command: Command) -> Command:
    """--height and --width: the size that engines are built for."""
    options = (
        click.option("--width", type=WholeNumber(min=1), metavar="PIXELS", help="With --height: engines for images of this size only."),
        click.option("--height", type=WholeNumber(min=1), metavar="PIXELS", help="With --width: engines for images of this size only."),
    )
    return _apply(options, command)


def check_both(height: int | None, width: int | None) -> tuple[int, int] | None:
    """The size, None for the bundle's usual engines; raises UsageError if only one side is given."""
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise click.UsageError("give both --height and --width, or neither", click.get_current_context())
    return height, width


def image(command: Callable[..., Any]) -> Callable[..., Any]:
    """Budget, trade-offs and properties of the image, as one `image: ImageChoice`."""
    options = (
        click.option("--width", type=WholeNumber(min=1), metavar="PIXELS", help="Image width.  [default: the bundle's]"),
        click.option("--height", type=WholeNumber(min=1), metavar="PIXELS", help="Image height.  [default: the bundle's]"),
        click.option("--negative-prompt", metavar="TEXT", help="What to keep out of the image; prefers guided candidates."),
        plain_prompt,
        click.option("--mask", type=click.Path(), metavar="FILE", help="With --init-image: paint only what is white in this image anew."),
        click.option(
            "--strength",
            type=Number(min=0, max=1, min_open=True),
            help="With --init-image: the share of the steps that run; 1 changes most.  [default: 0.8; with --mask 1]",
        ),
        click.option(
            "--init-image", type=click.Path(), metavar="FILE", help="PNG, JPEG or WebP image to begin with, scaled and cropped to the size."
        ),
        click.option("--count", type=WholeNumber(min=1), default=1, show_default=True, help="Images to make of each prompt."),
        click.option(
            "--tolerance",
            type=Number(min=0),
            default=0.0,
            show_default=True,
            help="Take the cheapest candidate whose quality is within this of the best.",
        ),
        click.option(
            "--lambda",
            "lam",
            type=Number(min=0),
            default=0.0,
            show_default=True,
            help="Quality that one millisecond is worth (lambda in quality - lambda x cost).",
        ),
        click.option(
            "--scheduler",
            metavar="NAME",
            help="Sample with this instead of the candidate's own: 'DPM++ 2M Karras', 'Euler a', dpmpp_2m/karras, a class of diffusers ...",
        ),
        click.option("--candidate", metavar="NAME", help="Use this candidate instead of routing (`costroute-rt route` lists them)."),
        click.option("--or-fastest", is_flag=True, help="If nothing fits the budget, run the fastest candidate."),
        click.option(
            "--max-ms",
            type=Number(min=0, min_open=True),
            help="Budget in milliseconds, from the prompt to the pixels.  [default: none, the best candidate]",
        ),
    )
    return _apply(options, _collected(command, "image", ImageChoice))


def model(command: Callable[..., Any]) -> Callable[..., Any]:
    """SOURCE and what is added to it, as one `model: ModelChoice`."""
    return _apply(model_options(), _collected(command, "model", ModelChoice))


def candidates(command: Callable[..., Any]) -> Callable[..., Any]:
    """Candidates of an export and how the bundle is written, as one `candidates: CandidateChoice`."""
    return _apply(candidate_options(), _collected(command, "candidates", CandidateChoice))


def _collected(command: Callable[..., Any], name: str, kind: type[Any]) -> Callable[..., Any]:
    """The command, called with the values of these options as one object."""
    names = [field.name for field in fields(kind)]

    @wraps(command)
    def call(**values: Any) -> Any:
        values[name] = kind(**{each: values.pop(each) for each in names if each in values})
        return command(**values)

    return call


def _apply(options: tuple[Callable[[Any], Any], ...], command: Command) -> Command:
    """Adds options; the last of them is the first in the help."""
    for option in options:
        command = option(command)
    return command
