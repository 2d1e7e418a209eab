"""The denoising loop: one engine call per row of a step table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from costroute_rt.cost.correction import Clock
from costroute_rt.engines.bundle.manifest import CARRIED, NEXT_CARRIED
from costroute_rt.generation.guard import Guard
from costroute_rt.generation.source import Source
from costroute_rt.sampling.scheduler import finer_rows, refine, replan
from costroute_rt.sampling.scheduler_config import KINDS, SchedulerConfig
from costroute_rt.sampling.step_table import StepTable

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

Value = Any
"""A tensor in the memory of the engine's device."""
Float32Array = npt.NDArray[np.float32]


class Denoiser:
    """A step or guided_step engine with those of its inputs that are the same for every row."""

    def __init__(self, engine: Engine, conditions: Mapping[str, Value]) -> None:
        """conditions: tensors on the engine's device, by input; those that the engine does not take are ignored."""
        self.engine = engine
        self.has_memory = CARRIED in engine.inputs
        """Whether the graph carries one more latent from row to row."""
        self._feeds: dict[str, Value] = {name: value for name, value in conditions.items() if name in engine.inputs}

    def fix(self, name: str, array: Float32Array) -> None:
        """Use this array for every row as an input, if the engine takes it."""
        if name in self.engine.inputs:
            self._feeds[name] = self.engine.to_device(array)

    def __call__(self, latent: Value, denoised_before: Value, carried: Value, noise: Value, row: Value) -> tuple[Value, Value, Value]:
        """Next latent, predicted clean latent and next carried latent; row: float32[9 or 14], one of `StepTable.rows`."""
        feeds = self._feeds
        feeds["latent"], feeds["denoised_before"], feeds["noise"], feeds["row"] = latent, denoised_before, noise, row
        if self.has_memory:
            feeds[CARRIED] = carried
        outputs = self.engine.run(feeds)
        return outputs["next_latent"], outputs["denoised"], outputs.get(NEXT_CARRIED, carried)


class Plain(NamedTuple):
    """The denoiser of rows without guidance, which runs once in place of twice."""

    step: Denoiser
    share: float
    """Expected time of its rows, relative to guided ones."""
    enter: Callable[[Value], Value]
    """Moves a latent to where its engine can read it."""
    leave: Callable[[Value], Value]
    """Moves a latent back to the engine of guided rows."""


class Run:
    """The run of one image through a step table, which its guard may shorten or refine."""

    def __init__(
        self,
        step: Denoiser,
        config: SchedulerConfig,
        table: StepTable,
        noise: Callable[[], Float32Array],
        *,
        clock: Clock,
        guard: Guard | None = None,
        plain: Plain | None = None,
        source: Source | None = None,
    ) -> None:
        """noise: returns float32[1, channels, height, width], standard normal; called for the start, then for each row that adds noise.

        guard: of the deadline, if there is one.
        plain: for rows whose guidance scale is 1; None means that `step` runs these too.
        source: the image that the run begins with; None means noise alone.
        """
        self._guided, self._config, self._table, self._noise, self._guard, self._clock = step, config, table, noise, guard, clock
        self._plain, self.is_plain = plain, False  # whether the latents lie with the engine of `plain`
        self._source = source
        engine, start = step.engine, noise()
        self._start = start
        begin = start * np.float32(table.initial_noise_scale) if source is None else source.begin(config, table, start)
        self.latent: Value = engine.to_device(begin)
        self._zeros: Value = engine.to_device(np.zeros_like(start))
        self.denoised: Value = self._zeros
        """The predicted clean latent, in the shape of the latent."""
        self._carried: Value = self._zeros
        self.done, self._index, self._ended = 0, 0, clock()
        self.left = len(table)
        """Rows still to run, as planned now."""
        self._rows = dict[bool, list[Value]]()
        """The table's rows on the device, for the guided denoiser and for the plain one."""

    @property
    def work_left(self) -> float:
        """`left`, with rows without guidance counted as what they take of a guided row."""
        if self._plain is None:
            return self.left
        return sum(self._share(row) for row in range(self._index, len(self._table)))

    def advance(self) -> float:
        """Run one row; returns the milliseconds of its denoiser call."""
        self._switch(self._is_plain_row(self._index))
        step = self._step
        row = self._rows_of(step)[self._index]
        noise = step.engine.to_device(self._noise()) if self._table.adds_noise(self._index) else self._zeros
        started = self._clock()
        self.latent, self.denoised, self._carried = step(self.latent, self.denoised, self._carried, noise, row)
        ended = self._clock()
        self._restore()
        before, self._ended = self._ended, self._clock()
        if self._guard is not None:
            self._guard.pace.observe((self._ended - before) * 1000, self._share(self._index))  # the caller's time between rows included
        self._index, self.done, self.left = self._index + 1, self.done + 1, self.left - 1
        return (ended - started) * 1000

    def replan(self) -> None:
        """Change the rest of the table to the rows that the guard chooses, if there is a guard; called before each row."""
        guard, left = self._guard, self.left
        if guard is None:
            return
        rows = guard.choose(self.done, left, share=self.work_left / left, count=self._count_rows)
        if rows < left:
            self._table = replan(self._config, self._table, self._index, rows)
        elif rows > left:
            self._table = refine(self._config, self._table, self._index, guard.way.table)
        else:
            return
        self._index, self.left = 0, len(self._table)
        self._rows.clear()

    def _count_rows(self, finer: StepTable) -> int:
        """How many rows `refine` would make; those that are left where it cannot be used."""
        if self._plain is not None or KINDS[self._config.name].rows_per_step > 1:
            return self.left
        return len(finer_rows(self._table, self._index, finer)) + 1

    def _restore(self) -> None:
        """Put the initial image back outside its mask."""
        if self._source is not None and self._source.mask is not None:
            engine, latent = self._step.engine, self._step.engine.to_host(self.latent)
            self.latent = engine.to_device(self._source.restore(self._config, self._table, self._index, np.asarray(latent), self._start))

    def use(self, engine: Engine, plain: Engine | None = None) -> None:
        """Go on with other engines of the same graphs, which share the memory of those before; plain: that of rows without guidance."""
        self._guided.engine = engine
        if self._plain is not None and plain is not None:
            self._plain.step.engine = plain

    def note_wait(self, seconds: float) -> None:
        """Leave time in which other requests ran out of the time of the next row."""
        self._ended += seconds

    def denoised_on_host(self) -> Float32Array:
        """float32[1, channels, height, width]: the predicted clean latent."""
        return np.asarray(self._step.engine.to_host(self.denoised))

    def is_finite(self) -> bool:
        """Whether every number of the latent is finite."""
        return bool(np.isfinite(self._step.engine.to_host(self.latent)).all())

    @property
    def _step(self) -> Denoiser:
        """The denoiser whose engine the latents lie with."""
        return self._plain.step if self._plain is not None and self.is_plain else self._guided

    def _is_plain_row(self, row: int) -> bool:
        return self._plain is not None and bool(np.asarray(self._table.guidance)[row] == 1)

    def _share(self, row: int) -> float:
        return self._plain.share if self._plain is not None and self._is_plain_row(row) else 1.0

    def _switch(self, is_plain: bool) -> None:
        """Move the latents to the engine of the next row, if it is the other one."""
        if self._plain is None or is_plain == self.is_plain:
            return
        move = self._plain.enter if is_plain else self._plain.leave
        self.latent, self.denoised, self._carried, self._zeros = map(move, (self.latent, self.denoised, self._carried, self._zeros))
        self.is_plain = is_plain

    def _rows_of(self, step: Denoiser) -> list[Value]:
        """The table's rows where the denoiser can read them."""
        found = self._rows.get(self.is_plain)
        if found is None:
            rows = self._table.rows(memory=step.has_memory).astype(np.float32)
            found = self._rows[self.is_plain] = [step.engine.to_device(row) for row in rows]
        return found
