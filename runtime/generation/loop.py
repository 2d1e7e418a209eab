"""The denoising loop: one engine call per row of a step table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.cost.correction import Clock
from costroute_rt.sampling.step_table import StepTable

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

Value = Any
"""A tensor where the engine keeps it."""
Shorten = Callable[[StepTable, int, int], StepTable]
"""(table, row, rows left) -> the table of what is left of a run: `scheduler.replan` of one scheduler."""

_GUARD = 0.02
"""Share of the time still needed that is set aside when a deadline is near: calls vary."""


@dataclass(frozen=True, slots=True)
class Row:
    """State of a run after a row."""

    done: int
    total: int
    """Rows of the run as planned now."""
    ms: float
    """Of this row's call."""
    latent: Value
    """float32[batch, channels, height, width]"""
    denoised: Value
    """The predicted clean latent, of the same shape."""


class Denoiser:
    """A step or guided_step engine with the inputs that stay the same from row to row."""

    def __init__(self, engine: Engine, conditions: Mapping[str, Value], *, guidance_scale: float | None) -> None:
        """conditions: text_states and what `condition` makes of them, of which the engine gets what it takes.

        Their first axis is 2 with guidance (negative first), 1 without (scale None).
        """
        self._engine = engine
        self._fixed: dict[str, Value] = {name: value for name, value in conditions.items() if name in engine.inputs}
        if guidance_scale is not None:
            self._fixed["guidance"] = engine.to_device(np.array(guidance_scale, dtype=np.float32))

    def __call__(self, latent: Value, denoised_before: Value, noise: Value, row: npt.NDArray[np.float32]) -> tuple[Value, Value]:
        """Next latent and predicted clean latent; row: float32[8], as `StepTable.row`."""
        feeds = {"latent": latent, "denoised_before": denoised_before, "noise": noise, "row": self._engine.to_device(row), **self._fixed}
        outputs = self._engine.run(feeds)
        return outputs["next_latent"], outputs["denoised"]


class Pace:
    """Whether a run will end in time, judged by its last rows."""

    def __init__(self, clock: Clock, *, row_ms: float, after_ms: float, finish_at_s: float | None) -> None:
        """row_ms: expected, for one row; after_ms: for all that follows the rows.

        finish_at_s: on `clock`; None where there is no deadline to keep.
        """
        self._clock, self._row_ms, self._after_ms, self._finish_at_s = clock, row_ms, after_ms, finish_at_s
        self._recent = deque([row_ms] * 3, maxlen=3)  # their median: one slow call says nothing about the next

    def observe(self, row_ms: float) -> None:
        """Take the time of one more row."""
        self._recent.append(row_ms)

    def remaining_ms(self, rows: int) -> float:
        """Expected time from now on, with `rows` still to run."""
        row_ms = median(self._recent)
        slowdown = max(row_ms / self._row_ms, 1.0) if self._row_ms > 0 else 1.0
        return rows * row_ms + self._after_ms * slowdown

    def rows_that_fit(self, rows: int) -> int:
        """How many of the `rows` that are left there is time for, 1 at least."""
        if self._finish_at_s is None:
            return rows
        left_ms = (self._finish_at_s - self._clock()) * 1000
        if self.remaining_ms(rows) <= left_ms:
            return rows
        while rows > 1 and self.remaining_ms(rows) * (1 + _GUARD) > left_ms:
            rows -= 1
        return rows


def denoise(
    step: Callable[[Value, Value, Value, npt.NDArray[np.float32]], tuple[Value, Value]],
    table: StepTable,
    latent: Value,
    *,
    zeros: Value,
    draw_noise: Callable[[], Value],
    pace: Pace,
    shorten: Shorten,
    clock: Clock,
) -> Iterator[Row]:
    """Runs the table from `latent` on, and yields after every row; close the generator to stop.

    latent: float32[batch, channels, height, width], standard normal noise times table.initial_noise_scale.
    zeros: stands for noise and an earlier D where a row uses neither; of the latent's shape.
    draw_noise: called once for each row that adds noise.
    A run that is late goes on with the rows there is time for.
    """
    rows, index, done = _float32_rows(table), 0, 0
    denoised, ended = zeros, clock()
    while index < len(table):
        fitting = pace.rows_that_fit(len(table) - index)
        if fitting < len(table) - index:
            table, index = shorten(table, index, fitting), 0
            rows = _float32_rows(table)
        noise = draw_noise() if table.s[index] else zeros
        started = clock()
        latent, denoised = step(latent, denoised, noise, rows[index])
        before, ended = ended, clock()
        ms = (ended - started) * 1000
        pace.observe((ended - before) * 1000)  # with what the caller did between the rows
        index, done = index + 1, done + 1
        yield Row(done, done + len(table) - index, ms, latent, denoised)


def _float32_rows(table: StepTable) -> npt.NDArray[np.float32]:
    return np.stack([table.row(index) for index in range(len(table))]).astype(np.float32)
