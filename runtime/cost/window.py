"""Numbers learned from recent observations."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

Clock = Callable[[], float]
"""Seconds from an arbitrary start, never falling."""

T = TypeVar("T")

LONG_S = 600.0
"""Age up to which observations count. If they were kept for ever, one busy minute could make an engine look too slow to be chosen, and
this would never be corrected, because an engine that is not chosen is not observed."""
LEVEL_S = 1.0
"""Seconds for which a level is cached; a new observation invalidates it sooner."""
LOADED = 1.1
"""Runs that take longer than this many times the usual time were slowed down by load."""
USUAL_EVERY_S = 5.0
"""Time between the observations that count for the usual level, so that a short burst of load adds few."""
_PRIORS = 3
"""Values that stand for observations before there are any."""
USUAL_SHARE = 0.25
"""Share of these observations that may be below the usual level: load makes runs slower, never faster."""


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

    def __init__(self, clock: Clock, *, size: int, max_age_s: float, prior: tuple[float, ...], every_s: float = 0.0) -> None:
        """every_s: least time between two observations that count; those between them are ignored."""
        super().__init__(clock, size=size, max_age_s=max_age_s)
        self._prior, self._every_s = prior, every_s

    def add(self, value: float) -> None:
        """Add an observation made now, unless the last one is too recent."""
        if not self._seen or self._clock() - self._seen[-1][0] >= self._every_s:
            super().add(value)

    def values(self) -> list[float]:
        """The prior values and the observations that still count."""
        return [*self._prior, *super().values()]

    def is_fresh(self) -> bool:
        """Whether any observation still counts."""
        return bool(self._seen) and self._seen[-1][0] >= self._clock() - self._max_age_s

    def median(self) -> float:
        """Median of the values, which outliers do not move."""
        return median(self.values())

    def upper(self, share: float) -> float:
        """The smallest value that a share `share` of the values does not exceed."""
        return upper(self.values(), share)


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two middle ones; `statistics`, which has it too, takes 4 ms to load."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def upper(values: Iterable[float], share: float) -> float:
    """The smallest of the values that a share `share` of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class Level(NamedTuple):
    """A factor, a share or a time in milliseconds."""

    now: float
    """As expected now."""
    usual: float
    """As expected without recent load, at most `now`."""


class Learned:
    """A number learned from observations: its level now, and its usual level, which a burst of load hardly changes."""

    def __init__(self, clock: Clock, prior: float) -> None:
        self._clock = clock
        self._level, self._level_until_s = Level(prior, prior), -math.inf
        self._recent = Window(clock, size=33, max_age_s=LONG_S, prior=(prior,) * _PRIORS)
        self._usual = Window(clock, size=33, max_age_s=LONG_S, prior=(prior,) * _PRIORS, every_s=USUAL_EVERY_S)

    def add(self, value: float) -> None:
        """Add an observation made now."""
        self._recent.add(value)
        self._usual.add(value)
        self._level_until_s = -math.inf

    def is_fresh(self) -> bool:
        """Whether any observation still counts."""
        return self._recent.is_fresh()

    def is_sure(self) -> bool:
        """Whether the observations that still count outnumber the prior ones."""
        return len(self._recent.values()) > 2 * _PRIORS

    def level(self) -> Level:
        """The median, and the lower quartile over a longer time if that is clearly lower; cached until the next observation, or a while."""
        now_s = self._clock()
        if now_s >= self._level_until_s:
            now, usual = self._recent.median(), self._usual.upper(USUAL_SHARE)
            self._level, self._level_until_s = Level(now, usual if now > LOADED * usual else now), now_s + LEVEL_S
        return self._level

    def forget_load(self, level: float = 0.0) -> None:
        """Drop the observations that are clearly above the usual level, or above `level` if that is higher."""
        highest = LOADED * max(self._usual.upper(USUAL_SHARE), level)
        self._recent.drop(lambda value: value > highest)
        self._level_until_s = -math.inf
