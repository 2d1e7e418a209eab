"""Correction of profiled costs by the times observed on the device since then."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from threading import Lock
from typing import Generic, TypeVar

Clock = Callable[[], float]
"""Seconds from an arbitrary start, never falling."""

T = TypeVar("T")
Times = Mapping[str, tuple[float, float]]

LONG_S, SHORT_S = 600.0, 60.0
"""Ages up to which observations count. If they were kept for ever, one busy minute could make an engine look too slow to be chosen, and
this would never be corrected, because an engine that is not chosen is not observed."""
MARGIN_LOW, MARGIN_HIGH = 0.02, 0.15
FACTORS_S = 1.0
"""Seconds for which computed factors are cached; a new observation invalidates them sooner."""
_DEVICE = ""
"""Key of the device's factor among the factors of the engines."""
COVERAGE = 0.98
"""Share of recent images that must have finished within the upper estimate."""


class Recent(Generic[T]):
    """The last few observations, none older than `max_age_s`."""

    def __init__(self, clock: Clock, *, size: int, max_age_s: float) -> None:
        self._clock, self._max_age_s = clock, max_age_s
        self._seen: deque[tuple[float, T]] = deque(maxlen=size)

    def add(self, value: T) -> None:
        """Add an observation made now."""
        self._seen.append((self._clock(), value))

    def drop(self, is_wrong: Callable[[T], bool]) -> None:
        """Remove the observations for which `is_wrong` returns True."""
        kept = [each for each in self._seen if not is_wrong(each[1])]
        self._seen.clear()
        self._seen.extend(kept)

    def values(self) -> list[T]:
        """The observations that still count, oldest first."""
        oldest = self._clock() - self._max_age_s
        while self._seen and self._seen[0][0] < oldest:
            self._seen.popleft()
        return [value for _, value in self._seen]


class Window(Recent[float]):
    """Recent numbers, preceded by prior values that never expire."""

    def __init__(self, clock: Clock, *, size: int, max_age_s: float, prior: tuple[float, ...]) -> None:
        super().__init__(clock, size=size, max_age_s=max_age_s)
        self._prior = prior

    def values(self) -> list[float]:
        """The prior values and the observations that still count."""
        return [*self._prior, *super().values()]

    def is_fresh(self) -> bool:
        """Whether any observation still counts."""
        return len(self.values()) > len(self._prior)

    def median(self) -> float:
        """Median of the values, which outliers do not move."""
        return median(self.values())

    def upper(self, share: float) -> float:
        """The smallest value that a share `share` of the values does not exceed."""
        ordered = sorted(self.values())
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class Correction:
    """Factors from profiled costs to the costs expected now; safe to use from several threads.

    A factor is the product of two running medians of actual over expected time: a long one for each engine (the profile was taken under
    other conditions) and a short one for the whole device (which may be busy or hot now). Through the second, observations of the engines
    in use also correct the others.

    The margin is how far recent images exceeded their upper estimates, as a share of the prediction: the quantile that split conformal
    prediction takes (Lei et al. 2018, Alg. 2), within fixed limits.
    """

    def __init__(self, clock: Clock, *, routing_ms: float = 0.0) -> None:
        """routing_ms: expected time of the router's engines per prompt, which is added to the initial estimate of the overhead."""
        self._clock = clock
        self._lock = Lock()
        self._images: Recent[Times] = Recent(clock, size=5, max_age_s=SHORT_S)
        self._calls: dict[str, Window] = {}
        self._loads: dict[str, Window] = {}
        self._excess = Window(clock, size=64, max_age_s=LONG_S, prior=(0.0,) * 16)
        self._overhead_ms = Window(clock, size=32, max_age_s=LONG_S, prior=(1.0 + routing_ms,) * 3)
        self._factors: dict[str, float] = {}
        self._factors_until_s = -math.inf

    def call_factor(self, engine: str) -> float:
        """Expected time over measured time, for a call of `engine` now."""
        with self._lock:
            now_s = self._clock()
            if now_s >= self._factors_until_s:
                self._factors, self._factors_until_s = {_DEVICE: self._device()}, now_s + FACTORS_S
            if engine not in self._factors:
                self._factors[engine] = self._long(engine) * self._factors[_DEVICE]
            return self._factors[engine]

    def load_factor(self, engine: str) -> float:
        """Expected time over measured time, for making `engine` resident."""
        with self._lock:
            return self._window(self._loads, engine).median()

    def overhead_ms(self) -> float:
        """Expected time outside engine calls, in milliseconds."""
        with self._lock:
            return self._overhead_ms.median()

    def margin(self) -> float:
        """Safety margin to add to an upper estimate, as a share of the prediction."""
        with self._lock:
            return min(max(self._excess.upper(COVERAGE), MARGIN_LOW), MARGIN_HIGH)

    def observe(self, calls: Times, loads: Times, *, overhead_ms: float, excess: float) -> None:
        """Learn from one request.

        calls, loads: for each engine that ran or was loaded, the profiled and the actual milliseconds, summed over its calls.
        overhead_ms: time outside engine calls and loading.
        excess: actual time beyond the upper estimate without its margin, as a share of the prediction; may be negative.
        """
        known = {engine: times for engine, times in calls.items() if times[0] > 0}
        with self._lock:
            if known:
                self._images.add(known)
            for engine, (measured, actual) in known.items():
                self._window(self._calls, engine).add(actual / measured)
            for engine, (measured, actual) in loads.items():
                if measured > 0:  # loads do not enter the device's factor: the speed of the disk says nothing about it
                    self._window(self._loads, engine).add(actual / measured)
            self._overhead_ms.add(overhead_ms)
            self._excess.add(excess)
            self._factors_until_s = -math.inf

    def forget(self, keys: Callable[[str], bool]) -> None:
        """Drop the observations of engines that were replaced, whose keys are those for which `keys` returns True."""
        with self._lock:
            for windows in (self._calls, self._loads):
                for key in [key for key in windows if keys(key)]:
                    del windows[key]
            self._images.drop(lambda calls: any(map(keys, calls)))

    def _device(self) -> float:
        """Median over the last images of actual over expected time, with one prior image of factor 1.

        The expected time depends on the long medians, so it is computed anew.
        """
        factors = [1.0]
        for calls in self._images.values():
            expected_ms = sum(measured * self._long(engine) for engine, (measured, _) in calls.items())
            factors.append(sum(actual for _, actual in calls.values()) / expected_ms)
        return median(factors)

    def _long(self, engine: str) -> float:
        """The engine's long median; for an engine not used lately, the median of the others, as they were profiled at the same time."""
        window = self._calls.get(engine)
        if window is not None and window.is_fresh():
            return window.median()
        others = [other.median() for other in self._calls.values() if other.is_fresh()]
        return median(others) if others else 1.0

    def _window(self, windows: dict[str, Window], engine: str) -> Window:
        return windows.setdefault(engine, Window(self._clock, size=33, max_age_s=LONG_S, prior=(1.0,) * 3))
