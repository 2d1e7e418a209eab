"""What all benchmarks share: a scenario as data, its figures and targets, and interleaved runs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from costroute_rt.export.router.curve import Interval

T = TypeVar("T")
P = ParamSpec("P")
Clock = Callable[[], float]
"""Seconds since an arbitrary start."""
PAUSE_S = 0.05
"""Pause between interleaved calls: idle threads of torch and ONNX Runtime spin for less than this before they sleep."""


@dataclass(frozen=True, slots=True)
class Target:
    """The range in which a figure must lie, both ends included."""

    low: float = -math.inf
    high: float = math.inf

    def admits(self, value: float) -> bool:
        return self.low <= value <= self.high


ABOVE_ZERO = Target(low=1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str = ""
    """us, ms, s, share, ratio, count, dB, MB, GB or score."""
    low: float | None = None
    high: float | None = None
    """Quartiles of repeated measurements, or the 95 % interval of a mean; None for a single number."""
    table: str = ""
    """Heading of a separate table, for figures that would crowd the main one; empty for the main table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing to measure."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What distinguishes it from the other scenarios of the benchmark; plain data."""
    warm_up: int = 0
    """Runs before the first measured one."""
    repeats: int = 1
    targets: Mapping[str, Target] = field(default_factory=dict)
    """By name of the figure. A target whose figure is missing counts as missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Figures and notes of one scenario."""

    figures: Sequence[Figure]
    notes: Mapping[str, str] = field(default_factory=dict)
    """Texts, by column heading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A scenario with its figures, or with the error that ended it."""

    scenario: Scenario
    figures: tuple[Figure, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None

    def find(self, name: str) -> Figure | None:
        """The figure of that name, or None."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def missed_targets(self) -> list[str]:
        """Names of the figures that are missing or outside their targets."""
        figures = {name: self.find(name) for name in self.scenario.targets}
        return [name for name, figure in figures.items() if figure is None or not self.scenario.targets[name].admits(figure.value)]

    @property
    def is_good(self) -> bool:
        """True if it ran and met every target."""
        return self.error is None and not self.missed_targets()


def run_scenario(scenario: Scenario, measure: Callable[[Scenario], Measurement]) -> Outcome:
    """Measures a scenario; an exception becomes the error of its outcome, so that no row is dropped."""
    log(scenario.name)
    try:
        measured = measure(scenario)
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        log(f"{scenario.name} failed: {text}")
        return Outcome(scenario=scenario, error=text)
    return Outcome(scenario=scenario, figures=tuple(measured.figures), notes=measured.notes)


def run_interleaved(
    calls: Mapping[str, Callable[[], T]], *, warm_up: int, repeats: int, pause_s: float = 0.0, sleep: Callable[[float], None] = time.sleep
) -> dict[str, list[T] | Exception]:
    """Calls A B C A B C ..., so that a slower phase of the machine affects all alike; a call that failed is not repeated.

    pause_s: wait before each call, see PAUSE_S.
    Returns the values of each call without those of the warm-up, or the exception that the call raised.
    """
    outcomes: dict[str, list[T] | Exception] = {name: [] for name in calls}
    for _ in range(warm_up + repeats):
        for name, call in calls.items():
            results = outcomes[name]
            if isinstance(results, Exception):
                continue
            sleep(pause_s)
            try:
                results.append(call())
            except Exception as error:
                outcomes[name] = error
    return {name: results if isinstance(results, Exception) else results[warm_up:] for name, results in outcomes.items()}


def defer_failure(opener: Callable[[], Callable[P, T]]) -> Callable[P, T]:
    """What `opener` returns; where it fails, a function that raises the same exception when it is called."""
    try:
        return opener()
    except Exception as error:
        reason = error

        def fail(*args: P.args, **kwargs: P.kwargs) -> T:
            raise reason

        return fail


def median_figure(name: str, values: Sequence[float], unit: str, *, table: str = "") -> Figure:
    """Median and quartiles of repeated measurements."""
    low, middle, high = (float(value) for value in np.percentile(values, [25, 50, 75]))
    return Figure(name=name, value=middle, unit=unit, low=low, high=high, table=table)


def mean_figure(name: str, values: Sequence[float], unit: str, *, table: str = "", resamples: int = 2000, seed: int = 0) -> Figure:
    """Mean of independent values with its 95 % interval, by the percentile bootstrap (Efron 1979)."""
    array = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(array), (resamples, len(array)))
    low, high = (float(value) for value in np.percentile(array[draws].mean(axis=1), [2.5, 97.5]))
    return Figure(name=name, value=float(array.mean()), unit=unit, low=low, high=high, table=table)


def ratio_figure(name: str, numerators: Sequence[float], denominators: Sequence[float]) -> Figure:
    """Ratio of the medians of interleaved measurements, with the quartiles of their ratios call by call."""
    ratios = median_figure(name, [above / below for above, below in zip(numerators, denominators, strict=True)], "ratio")
    return replace(ratios, value=float(np.median(numerators) / np.median(denominators)))


def interval_figure(name: str, interval: Interval, unit: str) -> Figure:
    """A bootstrapped value with its 95 % interval."""
    return Figure(name=name, value=interval.value, unit=unit, low=interval.low, high=interval.high)


def log(text: str) -> None:
    """Prints progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def with_progress(items: Sequence[T], what: str, every_s: float = 10.0, clock: Clock = time.monotonic) -> Iterator[T]:
    """Yields the items; logs every `every_s` seconds how many are done and the estimated time left."""
    started = logged = clock()
    for done, item in enumerate(items):
        now = clock()
        if done and now - logged >= every_s:
            log(f"  {what}: {done} of {len(items)}, about {(now - started) / done * (len(items) - done):.0f} s left")
            logged = now
        yield item
