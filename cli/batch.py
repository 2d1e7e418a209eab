"""One budget for a file of prompts: kept over the whole run, divided again after each image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli.failure import say_error

if TYPE_CHECKING:
    from costroute_rt.cli.output import Job
    from costroute_rt.route import Route
    from costroute_rt.runtime import Runtime

_OTHER_RULES = {"max_ms": "--max-ms", "candidate": "--candidate", "lam": "--lambda", "tolerance": "--tolerance"}
_SHARED = ("count", "negative_prompt", "height", "width")
_LEAST_MS = 1.0
_PLANS = 64
"""Of more prompts than this, the rest is planned again after every so many-th part of them, as a plan takes time too."""


def check_budget(total_s: float | None, mean_ms: float | None, *, has_file: bool, request: Mapping[str, Any]) -> None:
    """Raises UsageError where a budget for all prompts meets options it cannot be combined with."""
    if total_s is None and mean_ms is None:
        return
    if total_s is not None and mean_ms is not None:
        raise click.UsageError("give either --total-s or --mean-ms", click.get_current_context())
    if not has_file:
        raise click.UsageError("--total-s and --mean-ms divide time over the lines of --prompts FILE", click.get_current_context())
    others = [name for key, name in _OTHER_RULES.items() if request[key]]
    if others:
        raise click.UsageError(f"one budget for all prompts decides alone: leave out {', '.join(others)}", click.get_current_context())


@dataclass(frozen=True, slots=True)
class Budget:
    """Milliseconds for all prompts, and when they began to count."""

    total_ms: float
    started_s: float

    @classmethod
    def start(cls, total_s: float | None, mean_ms: float | None, prompts: int) -> Budget | None:
        """The clock starts now; None where neither was asked for."""
        if total_s is None and mean_ms is None:
            return None
        return cls(1000 * total_s if total_s is not None else prompts * (mean_ms or 0.0), time.perf_counter())

    def judge(self, runtime: Runtime, jobs: Sequence[Job], request: Mapping[str, Any]) -> tuple[list[tuple[Job, Route]], int]:
        """What each prompt would get alone; one that cannot be used is told and passed over. Gives the exit code as well."""
        from costroute_rt.error import PromptError

        usable, failed = [], 0
        for job in jobs:
            try:
                usable.append((job, runtime.route(job.prompt, **{name: request[name] for name in _SHARED})))
            except PromptError as error:
                say_error(f"line {job.line}: {error}")
                failed = error.exit_code
        return usable, failed

    def shares(self, runtime: Runtime, routes: Sequence[Route], request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What each of the routes' prompts is to be generated with, decided when it is asked for, in the time that is then left.

        The last one has the rest as a budget of its own. Once images were made, the fastest candidates finish the job.
        """
        shared, planned, planned_at = {name: request[name] for name in _SHARED}, list[Any](), 0
        for index in range(len(routes)):
            left, or_fastest = len(routes) - index, request["or_fastest"] or index > 0
            left_ms = max(_LEAST_MS, self.total_ms - self._spent_ms())
            if left == 1:
                yield {"max_ms": left_ms, "or_fastest": or_fastest}
                return
            if not planned or index - planned_at >= left / _PLANS:
                planned, planned_at = runtime.plan(routes[index:], total_ms=left_ms, or_fastest=or_fastest, **shared), index
            yield {"candidate": planned[index - planned_at].chosen.name}

    def describe(self, prompts: int) -> str:
        """`12 prompts in 58.3 s of 60.0 s`."""
        spent_ms = self._spent_ms()
        text = f"{prompts} prompts in {spent_ms / 1000:.1f} s of {self.total_ms / 1000:.1f} s"
        return text if spent_ms <= self.total_ms else f"{text}: budget missed"

    def _spent_ms(self) -> float:
        return (time.perf_counter() - self.started_s) * 1000
