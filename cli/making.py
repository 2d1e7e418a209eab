"""Makes the images of one prompt, one after the other, and writes each as soon as it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costroute_rt.error import BudgetError, OutputError

if TYPE_CHECKING:
    from costroute_rt.cli.choice import ImageChoice
    from costroute_rt.cli.output import Job, Names
    from costroute_rt.result import Result, StepEvent
    from costroute_rt.route import Route
    from costroute_rt.runtime import Runtime

Clock = Callable[[], float]
_LEAST_MS = 1.0
OnStep = Callable[["StepEvent"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a run gets from outside: how to open the runtime, the clock, and how to wait."""

    open_runtime: Callable[[], Runtime]
    clock: Clock
    sleep: Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One image that was made and written."""

    job: Job
    index: int
    path: Path
    result: Result
    route: Route
    """The decision: for several images of a prompt the one that was made for all of them, unless time ran short."""
    number: int
    """1 for the first image of the job that was made."""
    spent_ms: float
    """Time of the job's images so far."""
    max_ms: float | None
    """Budget of all images of the job together."""

    @property
    def is_last(self) -> bool:
        return self.number == len(self.job.indices)

    @property
    def met(self) -> bool | None:
        """Whether the budget holds so far; None if there is none."""
        return None if self.max_ms is None else self.spent_ms <= self.max_ms

    def to_json(self) -> dict[str, Any]:
        """The result as plain data; `max_ms` and `met` are about all images of the prompt."""
        return {**self.result.to_json(), "route": self.route.to_json(), "max_ms": self.max_ms, "met": self.met, "outputs": [str(self.path)]}

    def describe(self) -> str:
        """`postcard.png: postcard-base@8, seed 7, 512 ms (predicted 498), budget 800 ms met`; the budget after the last image."""
        result = self.result
        text = f"{self.path}: {result.settings['candidate']}, seed {result.seed}, "
        text += f"{result.actual_ms:.0f} ms (predicted {result.predicted_ms:.0f})"
        if result.fallback is not None:
            text += f", on {result.settings['backend']} {result.settings['provider']} as a fallback"
        if result.replanned:
            text += f", {result.replanned} steps dropped to keep the deadline"
        if self.max_ms is None or not self.is_last:
            return text
        several = f", {self.number} images in {self.spent_ms:.0f} ms" if self.number > 1 else ""
        return f"{text}{several}, budget {self.max_ms:.0f} ms {'met' if self.met else 'missed'}"


def make_images(
    runtime: Runtime, job: Job, image: ImageChoice, names: Names, clock: Clock, on_step: OnStep | None = None
) -> Iterator[Made]:
    """Makes, writes and yields the images of a job, within one budget for all of them.

    Raises what `Runtime.generate` raises, and OutputError; the images yielded before are finished.
    """
    if len(job.indices) > 1:
        yield from _make_several(runtime, job, image, names, clock, on_step)
        return
    index = job.indices[0]
    result = replace(image, count=1).generate(runtime, job.prompt, job.seed + index, on_step)
    path = _save(result, names.path(job, index))
    yield Made(
        job=job, index=index, path=path, result=result, route=result.route, number=1, spent_ms=result.actual_ms, max_ms=result.route.max_ms
    )


def _make_several(runtime: Runtime, job: Job, image: ImageChoice, names: Names, clock: Clock, on_step: OnStep | None) -> Iterator[Made]:
    """Chooses one candidate for all images and gives each image the time that the later ones do not need."""
    started, count = clock(), len(job.indices)
    route = replace(image, count=count).route(runtime, job.prompt)
    single = replace(image, count=1, candidate=route.chosen.name, max_ms=None, lam=0.0, tolerance=0.0)
    each_ms, spent_ms = route.option.ms / count, (clock() - started) * 1000
    for number, index in enumerate(job.indices, 1):
        choice = single
        if image.max_ms is not None and route.option.fits:
            choice = replace(single, max_ms=max(_LEAST_MS, image.max_ms - spent_ms - (count - number) * each_ms))
        result = _generate(runtime, job, index, choice, late=replace(choice, candidate=image.candidate, or_fastest=True), on_step=on_step)
        path = _save(result, names.path(job, index))
        spent_ms += result.actual_ms
        each_ms = max(each_ms, spent_ms / number)
        shared = route if result.route.chosen == route.chosen else result.route
        yield Made(job=job, index=index, path=path, result=result, route=shared, number=number, spent_ms=spent_ms, max_ms=image.max_ms)


def _generate(runtime: Runtime, job: Job, index: int, choice: ImageChoice, *, late: ImageChoice, on_step: OnStep | None) -> Result:
    """One image; with the choice `late` if its own no longer fits the time that is left."""
    try:
        return choice.generate(runtime, job.prompt, job.seed + index, on_step)
    except BudgetError:
        return late.generate(runtime, job.prompt, job.seed + index, on_step)


def _save(result: Result, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(path.parent, error.strerror or str(error)) from error
    return result.save(path)
