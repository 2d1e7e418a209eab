"""The one shape of every benchmark: a scenario is data, it gives figures, and each figure stands beside its target."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Clock = Callable[[], float]
"""Seconds, from anywhere."""


@dataclass(frozen=True, slots=True)
class Target:
    """The range a figure must lie in, both ends included."""

    low: float = -math.inf
    high: float = math.inf

    def admits(self, value: float) -> bool:
        return self.low <= value <= self.high


ABOVE_ZERO = Target(low=1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that a scenario found."""

    name: str
    value: float
    unit: str = ""
    """ms, s, share, ratio, count, dB, MB, GB or score."""
    low: float | None = None
    high: float | None = None
    """The quartiles of repeated measurements; for a mean, its 95 % interval. None for a single number."""
    table: str = ""
    """Heading of a table of its own, for figures that would crowd the main one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is to be measured."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Everything that makes it differ from the benchmark's other scenarios; plain data."""
    warm_up: int = 0
    """Runs before the first that counts."""
    repeats: int = 1
    targets: Mapping[str, Target] = field(default_factory=dict)
    """By the figure's name. A figure that is missing falls short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What measuring a scenario gives."""

    figures: Sequence[Figure]
    notes: Mapping[str, str] = field(default_factory=dict)
    """What is no number, by column heading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A scenario with what was found, or with the error that ended it."""

    scenario: Scenario
    figures: tuple[Figure, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None

    def find(self, name: str) -> Figure | None:
        """The figure of that name."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def shortfalls(self) -> list[str]:
        """Names of the targets that were not reached."""
        found = {name: self.find(name) for name in self.scenario.targets}
        return [name for name, figure in found.items() if figure is None or not self.scenario.targets[name].admits(figure.value)]

    @property
    def is_good(self) -> bool:
        """Whether it ran and every target was reached."""
        return self.error is None and not self.shortfalls()


def attempt(scenario: Scenario, measure: Callable[[Scenario], Measured]) -> Outcome:
    """Measures a scenario; whatever goes wrong becomes its outcome, so that no row is ever dropped."""
    say(scenario.name)
    try:
        measured = measure(scenario)
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        say(f"{scenario.name} failed: {text}")
        return Outcome(scenario=scenario, error=text)
    return Outcome(scenario=scenario, figures=tuple(measured.figures), notes=measured.notes)


def run_in_turns(
    calls: Mapping[str, Callable[[], T]], *, warm_up: int, repeats: int, pause_s: float = 0.0, sleep: Callable[[float], None] = time.sleep
) -> dict[str, list[T] | Exception]:
    """Calls A B C A B C ..., so that a machine that slows down slows all of them; one that fails takes no further turns.

    pause_s: before each call, so that threads which still wait busily for the last one's work go to sleep.
    Returns what the calls returned, warm-up left out, or the exception that ended one.
    """
    found: dict[str, list[T] | Exception] = {name: [] for name in calls}
    for _ in range(warm_up + repeats):
        for name, call in calls.items():
            results = found[name]
            if isinstance(results, Exception):
                continue
            sleep(pause_s)
            try:
                results.append(call())
            except Exception as error:
                found[name] = error
    return {name: results if isinstance(results, Exception) else results[warm_up:] for name, results in found.items()}


def spread(name: str, values: Sequence[float], unit: str) -> Figure:
    """Median and quartiles of repeated measurements."""
    low, middle, high = (float(value) for value in np.percentile(values, [25, 50, 75]))
    return Figure(name=name, value=middle, unit=unit, low=low, high=high)


def mean(name: str, values: Sequence[float], unit: str, *, table: str = "", resamples: int = 2000, seed: int = 0) -> Figure:
    """Mean of independent values with its 95 % interval, by the percentile bootstrap (Efron 1979)."""
    found = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(found), (resamples, len(found)))
    low, high = (float(value) for value in np.percentile(found[draws].mean(axis=1), [2.5, 97.5]))
    return Figure(name=name, value=float(found.mean()), unit=unit, low=low, high=high, table=table)


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(text, file=sys.stderr, flush=True)


def counted(items: Sequence[T], what: str, every_s: float = 10.0, clock: Clock = time.monotonic) -> Iterator[T]:
    """The items, with a word now and then on how many are done and how long the rest may take."""
    started = said = clock()
    for done, item in enumerate(items):
        now = clock()
        if done and now - said >= every_s:
            say(f"  {what}: {done} of {len(items)}, about {(now - started) / done * (len(items) - done):.0f} s left")
            said = now
        yield item
