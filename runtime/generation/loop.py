"""The denoising loop: one engine call per row of a step table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.cost.correction import Clock
from costroute_rt.engines.bundle.manifest import CARRIED, NEXT_CARRIED
from costroute_rt.sampling.scheduler import replan
from costroute_rt.sampling.scheduler_config import SchedulerConfig
from costroute_rt.sampling.step_table import StepTable

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

Value = Any
"""A tensor in the memory of the engine's device."""
Float32Array = npt.NDArray[np.float32]

_GUARD = 0.02
"""Share of the remaining time that re-planning keeps in reserve, because calls vary."""


class Denoiser:
    """A step or guided_step engine with those of its inputs that are the same for every row."""

    def __init__(self, engine: Engine, conditions: Mapping[str, Value]) -> None:
        """conditions: tensors on the engine's device, by input; those that the engine does not take are ignored."""
        self.engine = engine
        self.has_memory = CARRIED in engine.inputs
        """Whether the graph carries one more latent from row to row."""
        self._fixed: dict[str, Value] = {name: value for name, value in conditions.items() if name in engine.inputs}

    def __call__(
        self, latent: Value, denoised_before: Value, carried: Value, noise: Value, row: Float32Array
    ) -> tuple[Value, Value, Value]:
        """Next latent, predicted clean latent and next carried latent; row: float32[9 or 14], one of `StepTable.rows`."""
        feeds = {"latent": latent, "denoised_before": denoised_before, "noise": noise, "row": self.engine.to_device(row), **self._fixed}
        if self.has_memory:
            feeds[CARRIED] = carried
        outputs = self.engine.run(feeds)
        return outputs["next_latent"], outputs["denoised"], outputs.get(NEXT_CARRIED, carried)


class Pace:
    """Predicts the remaining time of a run from its last rows, and how many rows fit before the deadline."""

    def __init__(self, clock: Clock, *, row_ms: float, after_ms: float, finish_at_s: float | None) -> None:
        """row_ms: expected time of one row; after_ms: expected time of everything after the rows.

        finish_at_s: the deadline as a time of `clock`; None means no deadline.
        """
        self._clock, self._usual_ms, self._after_ms, self._finish_at_s = clock, row_ms, after_ms, finish_at_s
        self._recent = deque([row_ms] * 3, maxlen=3)  # their median is used: one slow call does not predict the next

    def observe(self, row_ms: float) -> None:
        """Add the time of one more row."""
        self._recent.append(row_ms)

    @property
    def row_ms(self) -> float:
        """Expected time of the next row."""
        return sorted(self._recent)[1]

    def remaining_ms(self, rows: int) -> float:
        """Expected time from now on, with `rows` still to run."""
        row_ms = self.row_ms
        slowdown = max(row_ms / self._usual_ms, 1.0) if self._usual_ms > 0 else 1.0
        return rows * row_ms + self._after_ms * slowdown

    def rows_that_fit(self, rows: int) -> int:
        """How many of the remaining `rows` fit before the deadline, at least 1.

        A run that is on time is not shortened; one that is late is shortened until 2 % of its remaining time is in reserve.
        """
        if self._finish_at_s is None:
            return rows
        left_ms = (self._finish_at_s - self._clock()) * 1000
        if self.remaining_ms(rows) <= left_ms:
            return rows
        while rows > 1 and self.remaining_ms(rows) * (1 + _GUARD) > left_ms:
            rows -= 1
        return rows


class Run:
    """The run of one image through a step table; a run that is late continues with the rows that fit before the deadline."""

    def __init__(
        self, step: Denoiser, config: SchedulerConfig, table: StepTable, noise: Callable[[], Float32Array], *, pace: Pace, clock: Clock
    ) -> None:
        """noise: returns float32[1, channels, height, width], standard normal; called for the start, then for each row that adds noise."""
        self._step, self._config, self._table, self._noise, self._pace, self._clock = step, config, table, noise, pace, clock
        engine, start = step.engine, noise()
        self.latent: Value = engine.to_device(start * np.float32(table.initial_noise_scale))
        self._zeros: Value = engine.to_device(np.zeros_like(start))
        self.denoised: Value = self._zeros
        """The predicted clean latent, in the shape of the latent."""
        self._carried: Value = self._zeros
        self.done, self._index, self._ended = 0, 0, clock()
        self._rows = self._float32_rows()

    @property
    def left(self) -> int:
        """Rows still to run, as planned now."""
        return len(self._table) - self._index

    def advance(self) -> float:
        """Run one row, after re-planning if the run is late; returns the milliseconds of its denoiser call."""
        fitting = self._pace.rows_that_fit(self.left)
        if fitting < self.left:
            self._table, self._index = replan(self._config, self._table, self._index, fitting), 0
            self._rows = self._float32_rows()
        noise = self._step.engine.to_device(self._noise()) if self._table.adds_noise(self._index) else self._zeros
        started = self._clock()
        row = self._rows[self._index]
        self.latent, self.denoised, self._carried = self._step(self.latent, self.denoised, self._carried, noise, row)
        before, self._ended = self._ended, self._clock()
        self._pace.observe((self._ended - before) * 1000)  # the caller's time between rows included
        self._index, self.done = self._index + 1, self.done + 1
        return (self._ended - started) * 1000

    def use(self, engine: Engine) -> None:
        """Go on with another engine of the same graph, which shares the memory of the one before."""
        self._step.engine = engine

    def note_wait(self, seconds: float) -> None:
        """Leave time in which other requests ran out of the time of the next row."""
        self._ended += seconds

    def denoised_on_host(self) -> Float32Array:
        """float32[1, channels, height, width]: the predicted clean latent."""
        return np.asarray(self._step.engine.to_host(self.denoised))

    def is_finite(self) -> bool:
        """Whether every number of the latent is finite."""
        return bool(np.isfinite(self._step.engine.to_host(self.latent)).all())

    def _float32_rows(self) -> Float32Array:
        return self._table.rows(memory=self._step.has_memory).astype(np.float32)
