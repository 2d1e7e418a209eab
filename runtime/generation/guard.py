"""The guard of a deadline: how a run goes on, decided before each row and before decoding."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from costroute_rt.cost.correction import Clock
from costroute_rt.cost.window import LOADED
from costroute_rt.sampling.step_table import StepTable

_RESERVE = 0.02
"""Share of the remaining time that a shortened run keeps in reserve, because calls vary."""


class Pace:
    """Predicts the remaining time of a run from its last rows.

    Rows that take another time than usual count as a share of a row.
    """

    def __init__(self, clock: Clock, *, row_ms: float, finish_at_s: float | None = None, spread: float = 0.0) -> None:
        """row_ms: expected time of one row. finish_at_s: the deadline as a time of `clock`; None means no deadline.

        spread: distance from an expected time to its 95th percentile, as a share of it.
        """
        self._clock, self._usual_ms, self._finish_at_s, self._spread = clock, row_ms, finish_at_s, spread
        self._recent = deque([row_ms] * 3, maxlen=3)
        self.row_ms = row_ms
        """Expected time of the next row: the median of the last ones, as one slow call does not predict the next."""

    def observe(self, row_ms: float, share: float = 1.0) -> None:
        """Add the time of one more row."""
        self._recent.append(row_ms / share)
        self.row_ms = sorted(self._recent)[1]

    @property
    def has_deadline(self) -> bool:
        """Whether the run can be late."""
        return self._finish_at_s is not None

    @property
    def is_fast(self) -> bool:
        """Whether rows take clearly less time than expected, such as when load ended that was there a moment ago."""
        return LOADED * self.row_ms < self._usual_ms

    def remaining_ms(self, rows: float, after_ms: float) -> float:
        """Expected time from now on, with `rows` still to run; after_ms: expected time of everything after the rows."""
        row_ms = self.row_ms
        slowdown = max(row_ms / self._usual_ms, 1.0) if self._usual_ms > 0 else 1.0
        return rows * row_ms + after_ms * slowdown

    def upper_ms(self, rows: float, after_ms: float) -> float:
        """The 95th percentile of that time."""
        return self.remaining_ms(rows, after_ms) * (1 + self._spread)

    def left_ms(self) -> float:
        """Time until the deadline; infinite without one."""
        return math.inf if self._finish_at_s is None else (self._finish_at_s - self._clock()) * 1000


class Way(NamedTuple):
    """A candidate that a run can become: it has the same denoiser, and another number of steps or another decoder."""

    name: str
    table: StepTable
    decoder: str
    after_ms: float
    """Expected time of everything after the rows: decoding, and later images of the request."""
    value: float
    """Expected quality, less what the time costs."""


class Guard:
    """Decides how many rows a run goes on with and which decoder ends it, by the time that is left.

    A run that is late takes fewer rows or a faster decoder: what fits with the highest expected quality. One that has time left goes on as
    a better candidate, if that is expected to be in time in 95 of 100 cases: with a better decoder, and with more rows if these are faster
    than expected. Otherwise every image would have some rows more than it was planned with, and no command would make it again.
    """

    def __init__(self, pace: Pace, ways: Sequence[Way], *, tolerance: float = 0.0, may_gain: Callable[[], bool] = lambda: True) -> None:
        """ways: what the run can become; it begins as the first. tolerance: difference of value that is worth no time.

        may_gain: whether time that is left may be used now; False if other requests wait for it.
        """
        self.pace, self.way = pace, ways[0]
        self._ways, self._tolerance, self._may_gain = ways, tolerance, may_gain
        self._decoders = list({way.decoder: way for way in ways}.values())
        """A way for each decoder."""

    def remaining_ms(self, rows: float) -> float:
        """Expected time from now on, with `rows` still to run."""
        return self.pace.remaining_ms(rows, self.way.after_ms)

    def choose(self, done: int, left: int, *, share: float = 1.0, count: Callable[[StepTable], int] = len) -> int:
        """How many rows to go on with after `done` of them, at least 1 if any of the `left` planned ones is left; `way` is what it becomes.

        share: of a row, that the rows count on average. count: how many rows lead through the noise levels of another table.
        """
        left_ms = self.pace.left_ms()
        if left_ms == math.inf:
            return left
        if self.remaining_ms(left * share) <= left_ms:
            return self._gain(done, left, share, left_ms, count)
        return self._save(done, left, share, left_ms)

    def _save(self, done: int, left: int, share: float, left_ms: float) -> int:
        """With each decoder, as many rows as fit with a reserve; of these the best."""
        fewest, plans = min(left, 1), list[tuple[int, Way]]()
        decoders = sorted(self._decoders, key=lambda way: way.decoder != self.way.decoder)
        for way in decoders:
            fitting = (rows for rows in range(left, fewest - 1, -1) if self._fits(rows * share, way, left_ms))
            plans += [(rows, way) for rows in fitting][:1]
        if not plans:
            plans = [(fewest, min(decoders, key=lambda way: way.after_ms))]
        rows, way = max(plans, key=lambda plan: (self._value(done + plan[0], plan[1].decoder), plan[0]))
        if way.decoder != self.way.decoder:
            self.way = self._nearest(len(self.way.table), way.decoder)
        return rows

    def _gain(self, done: int, left: int, share: float, left_ms: float, count: Callable[[StepTable], int]) -> int:
        """The best of the better candidates that would be in time."""
        least = self._value(done + left, self.way.decoder) + self._tolerance
        better = [
            way
            for way in self._ways
            if way.value > least
            and (len(way.table) <= done + left or way is self.way or self.pace.is_fast)
            and self.pace.upper_ms(left * share, way.after_ms) <= left_ms
        ]
        if not better or not self._may_gain():
            return left
        for way in sorted(better, key=lambda way: -way.value):
            rows = count(way.table) if len(way.table) > done + left else left
            is_better = self._value(done + rows, way.decoder) > least
            if is_better and self.pace.upper_ms(rows * share, way.after_ms) <= left_ms:
                self.way = way
                return max(rows, left)
        return left

    def _fits(self, rows: float, way: Way, left_ms: float) -> bool:
        return self.pace.remaining_ms(rows, way.after_ms) * (1 + _RESERVE) <= left_ms

    def _nearest(self, rows: int, decoder: str) -> Way:
        """The candidate with this decoder that has so many rows, or else the next one with more, or else the one with the most."""
        known = sorted((way for way in self._ways if way.decoder == decoder), key=lambda way: len(way.table))
        return next((way for way in known if len(way.table) >= rows), known[-1])

    def _value(self, rows: int, decoder: str) -> float:
        """The value of an image of so many rows, between those of the next candidates; less than any other if all have more rows."""
        known = sorted((len(way.table), way.value) for way in self._ways if way.decoder == decoder)
        above = next((index for index, (steps, _) in enumerate(known) if steps > rows), len(known))
        if above == 0:
            return -math.inf
        least, low = known[above - 1]
        if above == len(known):
            return low
        most, high = known[above]
        return low + (high - low) * (rows - least) / (most - least)
