"""Whether a run will end in time."""

from __future__ import annotations

from collections import deque
from statistics import median

from costroute_rt.cost.correction import Clock

_GUARD = 0.02
"""Share of the time still needed that is kept in reserve when a deadline is near: calls vary."""


class Pace:
    """Predicts the end of a run by its last rows, and how many rows there is time for."""

    def __init__(self, clock: Clock, *, row_ms: float, after_ms: float, finish_at_s: float | None) -> None:
        """row_ms: expected, for one row; after_ms: for all that follows the rows.

        finish_at_s: on `clock`; None: no deadline.
        """
        self._clock, self._row_ms, self._after_ms, self._finish_at_s = clock, row_ms, after_ms, finish_at_s
        self._recent = deque([row_ms] * 3, maxlen=3)  # their median is used: one slow call does not predict the next

    def observe(self, row_ms: float) -> None:
        """Take the time of one more row."""
        self._recent.append(row_ms)

    def remaining_ms(self, rows: int) -> float:
        """Expected time from now on, with `rows` still to run."""
        row_ms = median(self._recent)
        slowdown = max(row_ms / self._row_ms, 1.0) if self._row_ms > 0 else 1.0
        return rows * row_ms + self._after_ms * slowdown

    def rows_that_fit(self, rows: int) -> int:
        """How many of the remaining `rows` there is time for, 1 at least."""
        if self._finish_at_s is None:
            return rows
        left_ms = (self._finish_at_s - self._clock()) * 1000
        if self.remaining_ms(rows) <= left_ms:
            return rows
        while rows > 1 and self.remaining_ms(rows) * (1 + _GUARD) > left_ms:
            rows -= 1
        return rows
