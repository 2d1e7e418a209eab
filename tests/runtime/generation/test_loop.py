"""The denoising loop: rows, noise, and deadlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from costroute_rt.generation.guard import Guard, Pace, Way
from costroute_rt.generation.loop import Denoiser, Plain, Run
from costroute_rt.sampling.noise import NoiseStream
from costroute_rt.sampling.scheduler import build_table, replan
from costroute_rt.sampling.scheduler_config import SchedulerConfig
from costroute_rt.sampling.step_table import advance
from tests.runtime.fakes import FakeClock

SHAPE = (1, 4, 2, 2)
FLOW = SchedulerConfig(name="flow_match_euler", prediction_type="flow_prediction")
MULTISTEP = SchedulerConfig(name="dpmpp_2m", prediction_type="epsilon")
ANCESTRAL = SchedulerConfig(name="euler_ancestral", prediction_type="epsilon")
CARRYING = SchedulerConfig(name="unipc", prediction_type="epsilon", solver_type="bh2")


def network(x: Any, timestep: float) -> Any:
    return np.tanh(x) * (0.5 + timestep / 2000)


@dataclass
class FakeStep:
    """A fake `loop.Denoiser`, which takes `row_ms` of the clock per row and applies the linear rule to the network above."""

    clock: FakeClock
    row_ms: Callable[[int], float]
    timesteps: list[float] = field(default_factory=list)
    """Timesteps at which the network was called."""
    has_memory: bool = False

    @property
    def engine(self) -> FakeStep:
        return self

    def to_device(self, array: Any) -> Any:
        return np.asarray(array, np.float64)

    def to_host(self, value: Any) -> Any:
        return value

    def __call__(self, latent: Any, before: Any, carried: Any, noise: Any, row: Any) -> tuple[Any, Any, Any]:
        self.clock.pass_ms(self.row_ms(len(self.timesteps)))
        self.timesteps.append(float(row[1]))
        scale, timestep, _, p, q, a, b, c, s, *memory = row.astype(np.float64)
        e, f, g, h, k = memory if self.has_memory else (0, 0, 0, 0, 1)
        d = p * latent + q * network(scale * latent, timestep)
        after = a * latent + b * d + c * before + s * noise + e * carried
        return after, d, f * latent + g * d + h * before + k * carried


@dataclass
class Row:
    """The state of a run after a row."""

    latent: Any
    denoised: Any
    done: int
    total: int
    ms: float


def run(
    config: SchedulerConfig,
    steps: int,
    *,
    row_ms: Callable[[int], float] = lambda index: 10.0,
    max_ms: float | None = None,
    after_ms: float = 5.0,
    caller_ms: float = 0.0,
    ways: Sequence[Way] = (),
) -> tuple[list[Row], list[float]]:
    """The rows that ran, and the timesteps at which the network was called.

    caller_ms: time the caller takes after each row. ways: what the run can become.
    """
    clock = FakeClock()
    step = FakeStep(clock, row_ms, has_memory=build_table(config, steps).has_memory)
    pace = Pace(clock, row_ms=10.0, finish_at_s=None if max_ms is None else clock() + max_ms / 1000)
    table, stream = build_table(config, steps), NoiseStream([3], SHAPE[1:])
    guard = Guard(pace, [Way("base", table, "vae", after_ms, 1.0), *ways])
    images = Run(step, config, table, stream.draw, guard=guard, clock=clock)  # type: ignore[arg-type]
    rows = []
    while images.left:
        images.replan()
        ms = images.advance()
        rows.append(Row(images.latent, images.denoised, images.done, images.done + images.left, ms))
        clock.pass_ms(caller_ms)
    return rows, step.timesteps


def reference(config: SchedulerConfig, steps: int) -> Any:
    """The same run with the NumPy reference of a step."""
    table, stream = build_table(config, steps), NoiseStream([3], SHAPE[1:])
    x = stream.draw().astype(np.float64) * table.initial_noise_scale
    d, y = None, None
    for index in range(len(table)):
        m = network(table.input_scale[index] * x, table.timestep[index])
        x, d, y = advance(table, index, x, m, d, stream.draw() if table.s[index] else None, y)
    return x


@pytest.mark.parametrize("config", [FLOW, MULTISTEP, ANCESTRAL, CARRYING], ids=lambda config: config.name)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_loop_follows_the_table(config: SchedulerConfig, steps: int) -> None:
    rows, _ = run(config, steps)
    np.testing.assert_allclose(rows[-1].latent, reference(config, steps), rtol=1e-4, atol=1e-4)
    assert [row.done for row in rows] == list(range(1, steps + 1))
    assert {row.total for row in rows} == {steps}


def test_a_run_in_time_is_not_shortened() -> None:
    rows, _ = run(FLOW, 10, max_ms=105.5)
    assert len(rows) == 10


def test_a_late_run_skips_rows_and_keeps_its_deadline() -> None:
    rows, timesteps = run(FLOW, 10, row_ms=lambda index: 10 if index < 2 else 20, max_ms=130)
    assert len(rows) < 10
    assert sum(row.ms for row in rows) + 10 <= 130
    assert rows[-1].total == len(rows)
    assert timesteps == sorted(timesteps, reverse=True)


def test_the_rows_that_remain_start_at_the_level_that_was_reached() -> None:
    """The third row is 30 ms late, so the seven that were left become four."""
    table = build_table(FLOW, 10)
    rows, asked = run(FLOW, 10, row_ms=lambda index: 40 if index == 2 else 10, max_ms=110)
    assert len(rows) == 3 + 4
    assert asked == pytest.approx([*table.timestep[:3], *replan(FLOW, table, 3, 4).timestep])
    assert asked[3] == pytest.approx(table.timestep[3])


def test_a_guard_is_kept_between_a_late_run_and_its_deadline() -> None:
    """After a row of 45 ms, 65.5 ms are left: exactly enough for 6 rows and 5 ms, but not with 2 % more."""
    rows, _ = run(FLOW, 10, row_ms=lambda index: 45 if index == 0 else 10, max_ms=110.5)
    assert len(rows) == 1 + 5


def test_one_slow_row_skips_only_as_many_rows_as_its_delay() -> None:
    rows, _ = run(FLOW, 10, row_ms=lambda index: 40 if index == 3 else 10, max_ms=110)
    assert len(rows) == 7  # 30 ms late: three rows


def test_time_of_the_caller_between_rows_counts_against_the_deadline() -> None:
    rows, _ = run(FLOW, 10, max_ms=110, caller_ms=10)
    assert len(rows) < 10
    assert sum(row.ms + 10 for row in rows) <= 110


def test_the_last_row_always_runs() -> None:
    rows, _ = run(FLOW, 10, row_ms=lambda index: 500, max_ms=110)
    assert len(rows) == 2
    assert np.isfinite(rows[-1].latent).all()


def test_a_shortened_run_ends_without_noise() -> None:
    whole, _ = run(MULTISTEP, 20)
    rows, _ = run(MULTISTEP, 20, row_ms=lambda index: 10 if index < 5 else 25, max_ms=215)
    assert len(rows) < 20
    np.testing.assert_allclose(rows[-1].latent, rows[-1].denoised, atol=1e-3)
    assert np.abs(rows[-1].latent - whole[-1].latent).mean() < 0.5 * np.abs(whole[-1].latent).mean()


def test_rows_without_noise_draw_none() -> None:
    clock, drawn = FakeClock(), [np.zeros(SHAPE, np.float32)]
    images = Run(FakeStep(clock, lambda index: 1.0), FLOW, build_table(FLOW, 3), drawn.pop, clock=clock)  # type: ignore[arg-type]
    while images.left:
        images.advance()
    assert (images.done, drawn) == (3, [])


def test_noise_of_an_image_depends_on_its_own_seed_alone() -> None:
    alone, together = NoiseStream([8], (4, 2, 2)), NoiseStream([7, 8], (4, 2, 2))
    for _ in range(3):
        np.testing.assert_array_equal(alone.draw()[0], together.draw()[1])
    assert together.draw().dtype == np.float32


def run_guided(scales: list[float], *, max_ms: float | None = None) -> tuple[list[float], list[float]]:
    """Timesteps of the rows of a guided denoiser, of 20 ms each, and of those without guidance, of 10 ms."""
    clock = FakeClock()
    guided, plain = FakeStep(clock, lambda index: 20.0), FakeStep(clock, lambda index: 10.0)
    pace = Pace(clock, row_ms=20.0, finish_at_s=None if max_ms is None else clock() + max_ms / 1000)
    table = build_table(FLOW, len(scales)).with_guidance(np.array(scales))
    guard = Guard(pace, [Way("base", table, "vae", 0.0, 1.0)])
    moved = Plain(plain, share=0.5, enter=lambda value: value, leave=lambda value: value)  # type: ignore[arg-type]
    draw = NoiseStream([3], SHAPE[1:]).draw
    images = Run(guided, FLOW, table, draw, guard=guard, clock=clock, plain=moved)  # type: ignore[arg-type]
    assert images.work_left == pytest.approx(sum(0.5 if scale == 1 else 1.0 for scale in scales))
    while images.left:
        images.replan()
        images.advance()
    return guided.timesteps, plain.timesteps


def test_rows_without_guidance_run_the_denoiser_without_it() -> None:
    times = build_table(FLOW, 4).timestep.tolist()
    guided, plain = run_guided([1, 3, 3, 1])
    assert (guided, plain) == (times[1:3], [times[0], times[3]])


def test_half_rows_are_not_taken_for_late_or_early_ones() -> None:
    """8 guided rows and 8 of half the time take 240 ms: with 245 ms nothing is dropped, with 205 ms no more than is needed."""
    scales = [3.0] * 8 + [1.0] * 8
    assert [len(each) for each in run_guided(scales, max_ms=245)] == [8, 8]
    guided, plain = run_guided(scales, max_ms=205)
    assert 170 <= 20 * len(guided) + 10 * len(plain) <= 205


def test_a_fixed_input_is_given_to_engines_that_take_it() -> None:
    class Engine:
        inputs: ClassVar = {"latent": None, "guidance_rescale": None}
        fed: ClassVar[dict[str, Any]] = {}

        def to_device(self, array: Any) -> Any:
            return array

        def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
            self.fed.update(feeds)
            return {"next_latent": 0, "denoised": 0}

    step = Denoiser(Engine(), {})  # type: ignore[arg-type]
    step.fix("guidance_rescale", np.float32([0.7]))
    step.fix("unknown", np.float32([1.0]))
    step(0, 0, 0, 0, np.zeros(9, np.float32))
    assert Engine.fed["guidance_rescale"] == np.float32(0.7)
    assert "unknown" not in Engine.fed
