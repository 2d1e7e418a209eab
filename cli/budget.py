"""One budget for a file of prompts: kept over the whole run, divided again after each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from costroute_rt.cli.choice import ImageChoice
    from costroute_rt.cli.output import Job
    from costroute_rt.cli.report import Report
    from costroute_rt.route import Route
    from costroute_rt.runtime import Runtime

_OTHER_RULES = {"max_ms": "--max-ms", "candidate": "--candidate", "lam": "--lambda", "tolerance": "--tolerance"}
_LEAST_MS = 1.0
_GROUP = 128
"""Prompts that are judged and planned together: the first image must not wait for the whole file to be judged."""
_PLANS = 32
"""A plan of more prompts than this is renewed after each such part of it, not after each image: planning takes time."""
MOST_LINES = 100_000
"""Of --total-s, which must know all of them before the first image."""

Clock = Callable[[], float]
Work = Iterator[tuple["Job", "ImageChoice"]]


def check_budget(total_s: float | None, mean_ms: float | None, *, has_file: bool, image: ImageChoice) -> None:
    """Raises UsageError if a budget for all prompts comes with options that it excludes."""
    if total_s is None and mean_ms is None:
        return
    if total_s is not None and mean_ms is not None:
        raise click.UsageError("give either --total-s or --mean-ms", click.get_current_context())
    if not all(math.isfinite(limit) for limit in (total_s, mean_ms) if limit is not None):
        raise click.UsageError("--total-s and --mean-ms take finite numbers", click.get_current_context())
    if not has_file:
        raise click.UsageError("--total-s and --mean-ms divide time over the lines of --prompts FILE", click.get_current_context())
    others = [name for key, name in _OTHER_RULES.items() if getattr(image, key)]
    if others:
        raise click.UsageError(f"one budget for all prompts decides alone: leave out {', '.join(others)}", click.get_current_context())


class Budget:
    """Time for many prompts: a total for all of them, or a mean for each, for which nobody needs to know how many follow."""

    def __init__(self, *, total_s: float | None, mean_ms: float | None, clock: Clock) -> None:
        self._total_s, self._mean_ms, self._clock = total_s, mean_ms, clock
        self._granted_ms = 1000 * total_s if total_s is not None else 0.0
        """Time for all jobs so far; the total if that is given."""
        self._started_s = 0.0
        self._jobs = 0
        """Jobs known so far, and with a total all jobs."""
        self._handed = 0
        """Jobs that had their turn, or cannot be used."""
        self._made_any = False

    def divide(self, open_runtime: Callable[[], Runtime], jobs: Iterable[Job], image: ImageChoice, report: Report) -> Work:
        """Each job with its choice, made when it is its turn for the time that is then left.

        The last one has the rest as a budget of its own. Prompts that cannot be used are reported. Raises BudgetError at once if not
        even the fastest candidate fits; if time runs short later, the fastest candidates finish the work.
        """
        if self._total_s is not None:
            jobs = self._read_all(jobs, self._total_s)
        jobs = iter(jobs)
        following = next(jobs, None)
        if following is None:
            return
        runtime = open_runtime()
        self._started_s = self._clock()
        while following is not None:
            group = [following, *islice(jobs, _GROUP - 1)]
            following = next(jobs, None)
            if self._mean_ms is not None:
                self._jobs += len(group)
                self._granted_ms += len(group) * self._mean_ms
            judged = self._judge(runtime, group, image, report)
            yield from self._divide_group(runtime, judged, image, is_last=following is None)

    def describe(self, prompts: int) -> str:
        """`12 prompts in 58.3 s of 60.0 s`."""
        spent_ms = self._spent_ms()
        text = f"{prompts} prompts in {spent_ms / 1000:.1f} s of {self._granted_ms / 1000:.1f} s"
        return text if spent_ms <= self._granted_ms else f"{text}: budget missed"

    def _read_all(self, jobs: Iterable[Job], total_s: float) -> list[Job]:
        from costroute_rt.error import ConfigError

        known = list(islice(jobs, MOST_LINES + 1))
        if len(known) > MOST_LINES:
            raise ConfigError("--total-s", total_s, f"at most {MOST_LINES} prompts to divide it over (--mean-ms takes any number)")
        self._jobs = len(known)
        return known

    def _judge(self, runtime: Runtime, group: Sequence[Job], image: ImageChoice, report: Report) -> list[tuple[Job, Route]]:
        """What each prompt would get alone; a prompt that cannot be used is reported and left out."""
        from costroute_rt.error import PromptError

        alone, judged = replace(image, or_fastest=False), list[tuple["Job", "Route"]]()
        for index, job in enumerate(group):
            report.judging(index, len(group))
            try:
                route = alone.route(runtime, job.prompt)
            except PromptError as error:
                report.fail(job.line, job.prompt, error)
                self._handed += 1
                continue
            if not judged and not image.or_fastest:
                self._check_possible(route)
            judged.append((job, route))
        return judged

    def _check_possible(self, route: Route) -> None:
        """Raises BudgetError if there is too little time even with the fastest candidate; one prompt alone is checked when it is made."""
        from costroute_rt.error import BudgetError

        if self._made_any or self._jobs == 1:
            return
        each_ms = {option.candidate.name: option.ms - option.cost.swap_ms for option in route.options}  # engines are loaded once
        fastest = min(each_ms, key=each_ms.__getitem__)
        if self._mean_ms is not None and each_ms[fastest] > self._mean_ms:
            raise BudgetError(self._mean_ms, fastest, math.ceil(each_ms[fastest]))
        if self._jobs * each_ms[fastest] > self._granted_ms:
            raise BudgetError(self._granted_ms, fastest, math.ceil(self._jobs * each_ms[fastest]), prompts=self._jobs)

    def _divide_group(self, runtime: Runtime, judged: Sequence[tuple[Job, Route]], image: ImageChoice, *, is_last: bool) -> Work:
        planned, planned_at = list["Route"](), 0
        spent_ms, to_come = self._spent_ms(), self._jobs - self._handed
        group_end_ms = spent_ms + (self._granted_ms - spent_ms) * len(judged) / max(1, to_come)
        for index, (job, _) in enumerate(judged):
            left = len(judged) - index
            if is_last and left == 1:
                left_ms = max(_LEAST_MS, self._granted_ms - self._spent_ms())
                choice = replace(image, max_ms=left_ms, or_fastest=image.or_fastest or self._made_any)
            else:
                if not planned or index - planned_at >= left / _PLANS:
                    left_ms = max(_LEAST_MS, group_end_ms - self._spent_ms())
                    planned, planned_at = image.plan(runtime, [route for _, route in judged[index:]], left_ms, or_fastest=True), index
                choice = replace(image, candidate=planned[index - planned_at].chosen.name)
            self._handed, self._made_any = self._handed + 1, True
            yield job, choice

    def _spent_ms(self) -> float:
        return (self._clock() - self._started_s) * 1000
