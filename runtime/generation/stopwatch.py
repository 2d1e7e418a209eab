"""A stopwatch for the stages of a request."""

from __future__ import annotations

from collections import defaultdict

from costroute_rt.cost.correction import Clock
from costroute_rt.result import Timings


class Lap:
    """Times one `with` block and adds it to a stage."""

    def __init__(self, watch: Stopwatch, name: str) -> None:
        self._watch, self._name, self.started_s = watch, name, 0.0
        self.ms = 0.0
        """Duration of the block, once it has ended."""

    def __enter__(self) -> Lap:
        self.started_s = self._watch.clock()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ms = (self._watch.clock() - self.started_s) * 1000
        self._watch.stages[self._name] += self.ms


class Stopwatch:
    """Adds up the milliseconds of each stage of a request, and those in which it waited for other requests or for its caller."""

    def __init__(self, clock: Clock, spent_ms: float = 0.0) -> None:
        """Starts now. spent_ms: time of the caller before that counts."""
        self.clock = clock
        self.stages: defaultdict[str, float] = defaultdict(float)
        self.rows_ms: list[float] = []
        """One per denoiser call."""
        self.between_rows_ms = 0.0
        """Time around denoiser calls, outside engines."""
        self.waited_ms = 0.0
        self.started_s = clock() - spent_ms / 1000
        self.caller_ms = spent_ms
        self._left_s: float | None = None

    def stage(self, name: str) -> Lap:
        """A `with` block whose time is added to the stage `name`."""
        return Lap(self, name)

    def pause(self) -> None:
        """The caller's time begins."""
        self._left_s = self.clock()

    def resume(self) -> None:
        """The caller's time ends, if it had begun."""
        if self._left_s is not None:
            self.caller_ms += (self.clock() - self._left_s) * 1000
            self._left_s = None

    def elapsed_ms(self) -> float:
        """Milliseconds since the start."""
        return (self.clock() - self.started_s) * 1000

    def timings(self) -> Timings:
        """The timings so far."""
        stages, total_ms = self.stages, self.elapsed_ms()
        engines_ms = stages["text"] + stages["swap"] + stages["encode"] + sum(self.rows_ms) + stages["decode"]
        return Timings(
            tokenize_ms=stages["tokenize"],
            route_ms=stages["route"],
            text_ms=stages["text"],
            swap_ms=stages["swap"],
            denoise_ms=tuple(self.rows_ms),
            decode_ms=stages["decode"],
            encode_ms=stages["encode"],
            waited_ms=self.waited_ms,
            total_ms=total_ms,
            outside_ms=total_ms - engines_ms - self.waited_ms - self.caller_ms,
            caller_ms=self.caller_ms,
        )
