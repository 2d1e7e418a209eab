"""Where the milliseconds of a request go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from costroute_rt.cost.correction import Clock
from costroute_rt.result import Timings


class Lap:
    """How long one stretch took, once it is over."""

    ms = 0.0


class Stopwatch:
    """Adds up the milliseconds of each stage, from the moment it is made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stages: defaultdict[str, float] = defaultdict(float)
        self.rows_ms: list[float] = []
        """One per denoiser call."""
        self.started_s = clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[Lap]:
        """Counts the time inside towards `name`."""
        lap, started = Lap(), self._clock()
        yield lap
        lap.ms = (self._clock() - started) * 1000
        self._stages[name] += lap.ms

    def elapsed_ms(self) -> float:
        """Since the start."""
        return (self._clock() - self.started_s) * 1000

    def timings(self, waited_ms: float) -> Timings:
        """Everything so far."""
        stages, total_ms = self._stages, self.elapsed_ms()
        engines_ms = stages["text"] + stages["swap"] + sum(self.rows_ms) + stages["decode"]
        return Timings(
            tokenize_ms=stages["tokenize"],
            route_ms=stages["route"],
            text_ms=stages["text"],
            swap_ms=stages["swap"],
            denoise_ms=tuple(self.rows_ms),
            decode_ms=stages["decode"],
            total_ms=total_ms,
            outside_ms=total_ms - engines_ms,
            waited_ms=waited_ms,
        )
