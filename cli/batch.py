"""One budget for a file of prompts: kept over the whole run, divided again after each image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from costroute_rt.cli.failure import say_error

if TYPE_CHECKING:
    from costroute_rt.cli.choice import ImageChoice
    from costroute_rt.cli.output import Job
    from costroute_rt.route import Route
    from costroute_rt.runtime import Runtime

_OTHER_RULES = {"max_ms": "--max-ms", "candidate": "--candidate", "lam": "--lambda", "tolerance": "--tolerance"}
_LEAST_MS = 1.0
_PLANS = 64
"""A plan of more prompts than this is renewed after each such part of it, not after each image: planning takes time."""


def check_budget(total_s: float | None, mean_ms: float | None, *, has_file: bool, image: ImageChoice) -> None:
    """Raises UsageError if a budget for all prompts comes with options that it excludes."""
    if total_s is None and mean_ms is None:
        return
    if total_s is not None and mean_ms is not None:
        raise click.UsageError("give either --total-s or --mean-ms", click.get_current_context())
    if not has_file:
        raise click.UsageError("--total-s and --mean-ms divide time over the lines of --prompts FILE", click.get_current_context())
    others = [name for key, name in _OTHER_RULES.items() if getattr(image, key)]
    if others:
        raise click.UsageError(f"one budget for all prompts decides alone: leave out {', '.join(others)}", click.get_current_context())


@dataclass(frozen=True, slots=True)
class Budget:
    """Milliseconds for all prompts, and when they began to count."""

    total_ms: float
    started_s: float

    @classmethod
    def start(cls, total_s: float | None, mean_ms: float | None, prompts: int) -> Budget | None:
        """The clock starts now; None if there is no such budget."""
        if total_s is None and mean_ms is None:
            return None
        return cls(1000 * total_s if total_s is not None else prompts * (mean_ms or 0.0), time.perf_counter())

    def judge(self, runtime: Runtime, jobs: Sequence[Job], image: ImageChoice) -> tuple[list[tuple[Job, Route]], int]:
        """What each prompt would get alone, and the exit code; a prompt that cannot be used is reported and skipped."""
        from costroute_rt.error import PromptError

        usable, failed = [], 0
        for job in jobs:
            try:
                usable.append((job, replace(image, or_fastest=False).route(runtime, job.prompt)))
            except PromptError as error:
                say_error(f"line {job.line}: {error}")
                failed = error.exit_code
        return usable, failed

    def shares(self, runtime: Runtime, routes: Sequence[Route], image: ImageChoice) -> Iterator[ImageChoice]:
        """The choice for each of the routes' prompts, made when it is its turn, for the time that is then left.

        The last one has the rest as a budget of its own. Once images were made, the fastest candidates finish the job.
        """
        planned, planned_at = list["Route"](), 0
        for index in range(len(routes)):
            left, or_fastest = len(routes) - index, image.or_fastest or index > 0
            left_ms = max(_LEAST_MS, self.total_ms - self._spent_ms())
            if left == 1:
                yield replace(image, max_ms=left_ms, or_fastest=or_fastest)
                return
            if not planned or index - planned_at >= left / _PLANS:
                planned, planned_at = image.plan(runtime, routes[index:], left_ms, or_fastest=or_fastest), index
            yield replace(image, candidate=planned[index - planned_at].chosen.name)

    def describe(self, prompts: int) -> str:
        """`12 prompts in 58.3 s of 60.0 s`."""
        spent_ms = self._spent_ms()
        text = f"{prompts} prompts in {spent_ms / 1000:.1f} s of {self.total_ms / 1000:.1f} s"
        return text if spent_ms <= self.total_ms else f"{text}: budget missed"

    def _spent_ms(self) -> float:
        return (time.perf_counter() - self.started_s) * 1000
