"""The denoising loop: one engine call per row of a step table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.cost.correction import Clock
from costroute_rt.engines.bundle.manifest import CARRIED, NEXT_CARRIED
from costroute_rt.generation.pace import Pace
from costroute_rt.sampling.scheduler import SchedulerConfig, replan
from costroute_rt.sampling.step_table import StepTable

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

Value = Any
"""A tensor where the engine keeps it."""
Float32Array = npt.NDArray[np.float32]


class Denoiser:
    """A step or guided_step engine with the inputs that stay the same from row to row."""

    def __init__(self, engine: Engine, conditions: Mapping[str, Value]) -> None:
        """conditions: on the engine's device, by the names of its inputs; those that it does not take are left out."""
        self.engine = engine
        self.has_memory = CARRIED in engine.inputs
        """Whether the graph carries one more latent from row to row."""
        self._fixed: dict[str, Value] = {name: value for name, value in conditions.items() if name in engine.inputs}

    def __call__(
        self, latent: Value, denoised_before: Value, carried: Value, noise: Value, row: Float32Array
    ) -> tuple[Value, Value, Value]:
        """Next latent, predicted clean latent and next carried latent; row: float32[9 or 14], as `StepTable.rows`."""
        feeds = {"latent": latent, "denoised_before": denoised_before, "noise": noise, "row": self.engine.to_device(row), **self._fixed}
        if self.has_memory:
            feeds[CARRIED] = carried
        outputs = self.engine.run(feeds)
        return outputs["next_latent"], outputs["denoised"], outputs.get(NEXT_CARRIED, carried)


class Run:
    """One image on its way through a step table; a run that is late goes on with the rows there is time for."""

    def __init__(
        self, step: Denoiser, config: SchedulerConfig, table: StepTable, noise: Callable[[], Float32Array], *, pace: Pace, clock: Clock
    ) -> None:
        """noise: standard normal, float32[1, channels, height, width]; called for the start, then for each row that adds noise."""
        self._step, self._config, self._table, self._noise, self._pace, self._clock = step, config, table, noise, pace, clock
        engine, start = step.engine, noise()
        self.latent: Value = engine.to_device(start * np.float32(table.initial_noise_scale))
        self._zeros: Value = engine.to_device(np.zeros_like(start))
        self.denoised: Value = self._zeros
        """The predicted clean latent, of the latent's shape."""
        self._carried: Value = self._zeros
        self.done, self._index, self._ended = 0, 0, clock()
        self._rows = self._float32_rows()

    @property
    def left(self) -> int:
        """Rows still to run, as planned now."""
        return len(self._table) - self._index

    def advance(self) -> float:
        """Run one row; returns the milliseconds of its call."""
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

    def _float32_rows(self) -> Float32Array:
        return self._table.rows(memory=self._step.has_memory).astype(np.float32)
