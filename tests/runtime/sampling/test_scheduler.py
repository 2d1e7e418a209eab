"""Schedulers: properties that can be tested without torch, and the step-by-step comparison with diffusers (mark `export`)."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.sampling.diffusers_config import from_diffusers
from costroute_rt.sampling.noise_schedule import alphas_cumprod
from costroute_rt.sampling.scheduler import SCHEDULERS, build_table, refine, replan
from costroute_rt.sampling.scheduler_config import KINDS, SchedulerConfig
from costroute_rt.sampling.solver.unipc import unipc
from costroute_rt.sampling.step_table import COLUMNS, MEMORY, Descent, FloatArray, StepTable, advance

STEPS = (1, 2, 7, 20, 50)
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")
PRESERVING = ("ddim", "ddpm", "lcm", "tcd")
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def make_config(name: str, **settings: Any) -> SchedulerConfig:
    own: dict[str, Any] = {"prediction_type": "flow_prediction" if name.startswith("flow") else "epsilon"}
    if name in KINDS:
        own |= {"solver_type": KINDS[name].solver_types[0], "solver_order": KINDS[name].solver_orders[-1]}
    return SchedulerConfig(**({"name": name} | own | settings))


def make_table(config: SchedulerConfig, steps: int) -> StepTable:
    return build_table(config, steps, tokens=1024)


def known_configs() -> Iterator[SchedulerConfig]:
    """Every scheduler with each prediction type and feature that it supports."""
    for name, scheduler in KINDS.items():
        for prediction_type in scheduler.prediction_types:
            for feature in (None, *(each for each in scheduler.features if each != "shift_terminal")):
                if not (feature == "rescale_betas_zero_snr" and prediction_type == "epsilon" and name in PRESERVING):
                    yield make_config(
                        name,
                        prediction_type=prediction_type,
                        **({feature: True} if feature else {}),
                    )
    for name in ("euler", "dpmpp_2m", "flow_match_euler"):
        yield from (make_config(name, sigma_schedule=schedule) for schedule in KINDS[name].sigma_schedules[1:])
    yield make_config("kdpm2", sigma_schedule="karras")
    yield make_config("flow_unipc", sigma_schedule="simple")
    yield make_config("ddim", eta=1.0)
    yield make_config("tcd", eta=0.3)
    yield make_config("ddpm", variance_type="fixed_small_log")
    yield make_config("dpmpp_3m", algorithm_type="sde-dpmsolver++", lower_order_final=False, solver_type="heun")
    yield make_config("dpmpp_2s", algorithm_type="sde-dpmsolver++", lower_order_final=False)
    yield make_config("dpmpp_3s", solver_type="heun", final_sigmas_type="sigma_min")
    yield make_config("dpmpp_3s", algorithm_type="sde-dpmsolver++", solver_type="heun", final_sigmas_type="sigma_min")
    yield make_config("dpmpp_2m", solver_type="heun", timestep_spacing="linspace")
    yield make_config("dpmpp_2m", solver_order=1)
    yield make_config("dpmpp_2m", algorithm_type="sde-dpmsolver++")
    yield make_config("flow_dpmpp_2m", algorithm_type="sde-dpmsolver++", shift=3.0)
    yield make_config("flow_match_euler", shift=3.0)
    yield make_config("flow_match_euler", stochastic_sampling=True)
    yield make_config("unipc", solver_type="bh1", timestep_spacing="linspace")
    yield make_config("unipc", solver_order=1)


CONFIGS = pytest.mark.parametrize("config", list(known_configs()), ids=lambda config: f"{config.name}-{config.prediction_type}")


def split_noise(config: SchedulerConfig, level: float) -> tuple[float, float]:
    """(alpha, sigma) of x = alpha x0 + sigma n at a noise level of this scheduler."""
    if config.name.startswith("flow"):
        return 1 - level, level
    if config.name in PRESERVING:
        return math.sqrt(1 - level**2), level
    if config.name in ("dpmpp_2m", "dpmpp_3m", "dpmpp_2s", "dpmpp_3s", "unipc"):
        return 1 / math.hypot(level, 1), level / math.hypot(level, 1)
    return 1.0, level


def predict_perfectly(config: SchedulerConfig, x: FloatArray, clean: FloatArray, level: float) -> FloatArray:
    """The output for x of a model that knows the clean latent."""
    alpha, sigma = split_noise(config, level)
    noise = (x - alpha * clean) / sigma
    scale = math.hypot(alpha, sigma)
    return {
        "epsilon": noise,
        "v_prediction": (alpha * noise - sigma * clean) / scale,
        "sample": clean,
        "flow_prediction": noise - clean,
    }[config.prediction_type]


def walk(
    config: SchedulerConfig,
    table: StepTable,
    x: FloatArray,
    clean: FloatArray,
    rows: range | None = None,
    d: FloatArray | None = None,
    y: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray | None, FloatArray | None]:
    """Run a table with a perfect denoiser; every row's D must be the clean latent. Returns x, D and the carried latent."""
    noise = np.random.default_rng(5)
    for i in rows or range(len(table)):
        m = predict_perfectly(config, x, clean, table.noise_levels[i])
        x, d, y = advance(table, i, x, m, d, noise.standard_normal(x.shape), y)
        np.testing.assert_allclose(d, clean, atol=1e-6)
    return x, d, y


@pytest.fixture
def latents() -> tuple[FloatArray, FloatArray]:
    """(noise, clean)"""
    rng = np.random.default_rng(3)
    return rng.standard_normal((2, 8)), rng.standard_normal((2, 8))


def test_every_kind_of_scheduler_has_its_functions() -> None:
    assert list(SCHEDULERS) == list(KINDS)


@CONFIGS
@pytest.mark.parametrize("steps", STEPS)
def test_a_perfect_denoiser_ends_at_the_clean_latent(config: SchedulerConfig, steps: int, latents: tuple[FloatArray, FloatArray]) -> None:
    noise, clean = latents
    table = make_table(config, steps)
    alpha, sigma = split_noise(config, table.noise_levels[0])
    end, *_ = walk(config, table, alpha * clean + sigma * noise, clean)
    alpha, sigma = split_noise(config, table.noise_levels[-1])
    assert np.abs(end - alpha * clean).max() <= 6 * sigma + 1e-4  # ddim may end at the lowest training level, lcm within its boundary
    assert sigma <= 0.03


@CONFIGS
@pytest.mark.parametrize("steps", STEPS)
def test_the_noise_levels_of_a_table_fall(config: SchedulerConfig, steps: int) -> None:
    table = make_table(config, steps)
    assert len(table) == (2 * steps - 1 if KINDS[config.name].rows_per_step == 2 else steps)
    assert (np.diff(table.noise_levels[:: KINDS[config.name].rows_per_step]) < 0).all()
    assert (np.diff(table.timestep) <= (0.5 if config.name.startswith("kdpm2") else 1e-4)).all()  # kdpm2 rounds those of step starts
    assert table.timestep[-1] >= 0
    assert table.timestep[0] <= config.num_train_timesteps
    assert table.c[0] == 0
    assert table.s[-1] == 0 or table.noise_levels[-1] > 0


@CONFIGS
@pytest.mark.parametrize(("row", "rows_left"), [(0, 5), (1, 1), (4, 7), (5, 6), (13, 2), (19, 1)])
def test_a_shortened_run_ends_at_the_clean_latent(
    config: SchedulerConfig, row: int, rows_left: int, latents: tuple[FloatArray, FloatArray]
) -> None:
    noise, clean = latents
    table = make_table(config, 20)
    alpha, sigma = split_noise(config, table.noise_levels[0])
    start = alpha * clean + sigma * noise
    x, d, y = walk(config, table, start, clean, range(row)) if row else (start, None, None)
    shorter = replan(config, table, row, rows_left)
    assert 1 <= len(shorter) <= rows_left
    assert len(shorter) == rows_left - (rows_left % 2 == 0 and KINDS[config.name].rows_per_step == 2 and rows_left < len(table) - row)
    assert shorter.noise_levels[0] == table.noise_levels[row]
    assert shorter.noise_levels[-1] == table.noise_levels[-1]
    stride = 2 if KINDS[config.name].rows_per_step == 2 and config.name != "heun" else 1  # others call the denoiser in the middle too
    assert set(shorter.timestep[::stride]) <= set(table.timestep)
    end, *_ = walk(config, shorter, x, clean, d=d, y=y)
    alpha, sigma = split_noise(config, table.noise_levels[-1])
    assert np.abs(end - alpha * clean).max() <= 6 * sigma + 1e-3


@CONFIGS
def test_replanning_with_all_rows_left_changes_nothing(config: SchedulerConfig) -> None:
    table = make_table(config, 9)
    same = replan(config, table, 4, len(table) - 4)
    for name in (*COLUMNS, *MEMORY, "noise_levels"):
        np.testing.assert_array_equal(getattr(same, name), getattr(table, name)[4:])


def test_a_shortened_dpmpp_run_uses_the_d_before_it() -> None:
    config = make_config("dpmpp_2m", sigma_schedule="karras")
    table = make_table(config, 20)
    shorter = replan(config, table, 6, 7)
    assert shorter.c[0] != 0
    assert replan(config, table, 0, 7).c[0] == 0
    # Lu et al. 2022, equation 16, with the distance to the D before it taken from the old table
    to_lambda = -np.log(table.noise_levels[[5, 6]])
    h = -np.log(shorter.noise_levels[1]) - to_lambda[1]
    alpha_next = 1 / math.hypot(shorter.noise_levels[1], 1)
    assert shorter.c[0] == pytest.approx(alpha_next * math.expm1(-h) * h / (2 * (to_lambda[1] - to_lambda[0])))


@CONFIGS
def test_a_shortened_run_keeps_the_guidance_of_its_rows(config: SchedulerConfig) -> None:
    table = make_table(config, 10)
    table = table.with_guidance(1 + table.timestep)
    shorter = replan(config, table, 4, 3)
    stride = KINDS[config.name].rows_per_step
    np.testing.assert_array_equal(shorter.guidance[::stride], 1 + shorter.timestep[::stride])
    assert shorter.guidance[1:].tolist() == sorted(shorter.guidance[1:], reverse=True)


def test_a_shortened_unipc_run_equals_the_end_of_a_run_over_the_same_levels() -> None:
    """The corrector of the row at which a run is re-planned depends only on the rows before it."""
    config = make_config("unipc", sigma_schedule="karras")
    table = make_table(config, 20)
    shorter = replan(config, table, 6, 5)
    levels = np.concatenate([table.noise_levels[4:6], shorter.noise_levels])
    timesteps = np.concatenate([table.timestep[4:6], shorter.timestep])
    whole = unipc(Descent.through(timesteps, levels), "epsilon", solver_type="bh2")
    np.testing.assert_allclose(shorter.rows(memory=True), whole.rows(memory=True)[2:], rtol=1e-12)
    assert shorter.e[0] != 0


@pytest.mark.parametrize(
    ("row", "rows_left", "kept"), [(2, 3, [2, 5, 8]), (0, 4, [0, 3, 5, 8]), (3, 2, [3, 7]), (9, 1, [9]), (4, 5, [4, 6, 7, 8, 9])]
)
def test_replanning_keeps_evenly_thinned_steps_and_the_lowest_of_each_share(row: int, rows_left: int, kept: list[int]) -> None:
    config = make_config("euler")
    table = make_table(config, 10)
    shorter = replan(config, table, row, rows_left)
    np.testing.assert_array_equal(shorter.timestep, table.timestep[kept])
    np.testing.assert_array_equal(shorter.noise_levels, table.noise_levels[[*kept, 10]])


def test_heun_replans_between_predictor_and_corrector() -> None:
    config = make_config("heun")
    table = make_table(config, 10)
    assert [len(replan(config, table, 5, rows)) for rows in (1, 2, 3, 6, 14)] == [1, 1, 3, 5, 14]


@pytest.mark.parametrize(("row", "rows_left", "name"), [(-1, 1, "row"), (8, 1, "row"), (3, 0, "rows_left"), (3, 6, "rows_left")])
def test_replanning_refuses_rows_outside_the_table(row: int, rows_left: int, name: str) -> None:
    config = make_config("euler")
    with pytest.raises(ConfigError) as caught:
        replan(config, build_table(config, 8), row, rows_left)
    assert caught.value.name == name


@CONFIGS
@pytest.mark.parametrize(("steps", "row", "finer_steps"), [(4, 1, 8), (4, 3, 20), (7, 2, 10), (2, 1, 3), (10, 0, 20)])
def test_a_refined_run_ends_at_the_clean_latent(
    config: SchedulerConfig, steps: int, row: int, finer_steps: int, latents: tuple[FloatArray, FloatArray]
) -> None:
    if KINDS[config.name].rows_per_step > 1:
        pytest.skip("runs of two rows per step are not refined")
    noise, clean = latents
    table, finer = make_table(config, steps), make_table(config, finer_steps)
    alpha, sigma = split_noise(config, table.noise_levels[0])
    start = alpha * clean + sigma * noise
    x, d, y = walk(config, table, start, clean, range(row)) if row else (start, None, None)
    refined = refine(config, table, row, finer)
    assert len(refined) >= steps - row
    assert refined.noise_levels[0] == table.noise_levels[row]
    assert refined.noise_levels[-1] == finer.noise_levels[-1]
    assert (np.diff(refined.noise_levels) < 0).all()
    assert set(refined.timestep) <= {table.timestep[row], *finer.timestep}
    end, *_ = walk(config, refined, x, clean, d=d, y=y)
    alpha, sigma = split_noise(config, finer.noise_levels[-1])
    assert np.abs(end - alpha * clean).max() <= 6 * sigma + 1e-3


def test_a_run_refined_at_its_start_is_the_finer_run() -> None:
    config = make_config("flow_dpmpp_2m")
    refined, finer = refine(config, make_table(config, 4), 0, make_table(config, 8)), make_table(config, 8)
    np.testing.assert_allclose(refined.rows(memory=True), finer.rows(memory=True), rtol=1e-9)


def test_a_refined_run_has_the_guidance_of_the_finer_rows_and_leaves_out_a_level_that_is_near() -> None:
    config = make_config("flow_match_euler")
    table = make_table(config, 4).with_guidance(3.0)
    for steps, first in ((10, 4), (9, 4), (8, 3)):  # its own level, a level that is nearer than half a step, and one that is not
        finer = make_table(config, steps).with_guidance(7.0)
        refined = refine(config, table, 1, finer)
        np.testing.assert_array_equal(refined.noise_levels, [table.noise_levels[1], *finer.noise_levels[first:]])
        assert np.asarray(refined.guidance).tolist() == [3, *[7] * (steps - first)]


# Results of diffusers 0.39.0 for unit basis vectors: x after each step as a sum of the start (first column) and each model output.
GOLDEN: dict[str, tuple[SchedulerConfig, list[float], list[list[float]]]] = {
    "euler": (
        make_config("euler", timestep_spacing="leading", steps_offset=1),
        [667, 334, 1],
        [
            [3.095523119, -1.994039774, 0, 0],
            [3.095523119, -1.994039774, -0.894195735, 0],
            [3.095523119, -1.994039774, -0.894195735, -0.041314479],
        ],
    ),
    "dpmpp_2m_karras": (
        make_config("dpmpp_2m", timestep_spacing="linspace", sigma_schedule="karras"),
        [999, 687, 146, 0],
        [
            [4.408757274, -3.444836783, 0, 0, 0],
            [13.373940913, -8.858069377, -4.076646997, 0, 0],
            [14.64259171, -8.563314429, -5.30745027, -0.708513426, 0],
            [14.648819801, -8.566956755, -5.309707745, -0.708814786, -0.029167534],
        ],
    ),
    "flow_dpmpp_2m": (
        make_config("flow_dpmpp_2m", shift=3.0),
        [999, 899, 749, 499],
        [
            [1, -0.100026663, 0, 0, 0],
            [1, -0.085874541, -0.164167143, 0, 0],
            [1, -0.083512207, -0.041398879, -0.375088824, 0],
            [1, -0.083512207, -0.041398879, -0.375088824, -0.499666542],
        ],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_tables_reproduce_recorded_results_of_diffusers(name: str) -> None:
    config, timesteps, expected = GOLDEN[name]
    table = build_table(config, len(timesteps))
    np.testing.assert_array_equal(table.timestep, timesteps)
    basis = np.eye(len(table) + 1)
    x, d, y = basis[0] * table.initial_noise_scale, None, None
    for i, row in enumerate(expected):
        x, d, y = advance(table, i, x, basis[i + 1], d, y=y)
        np.testing.assert_allclose(x, row, rtol=2e-6, atol=1e-7)


def test_zero_terminal_snr_has_a_last_signal_of_zero() -> None:
    signal = alphas_cumprod(1000, 0.00085, 0.012, "scaled_linear", True)
    assert signal[-1] == 0
    assert signal[0] == pytest.approx(1 - 0.00085, abs=1e-7)
    assert (np.diff(signal) < 0).all()


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"name": "plms"}, "scheduler"),
        ({"name": "euler", "prediction_type": "flow_prediction"}, "prediction_type"),
        ({"name": "flow_match_euler", "prediction_type": "epsilon"}, "prediction_type"),
        ({"name": "euler_ancestral", "prediction_type": "sample"}, "prediction_type"),
        ({"name": "ddim", "sigma_schedule": "karras"}, "sigma_schedule"),
        ({"name": "heun", "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"name": "ddim", "eta": 1.5}, "eta"),
        ({"name": "ddim", "eta": math.nan}, "eta"),
        ({"name": "dpmpp_2m", "solver_order": 3}, "solver_order"),
        ({"name": "unipc", "solver_order": 3}, "solver_order"),
        ({"name": "dpmpp_3m", "solver_order": 2}, "solver_order"),
        ({"name": "ddpm", "variance_type": "learned"}, "variance_type"),
        ({"name": "lcm", "sigma_schedule": "sgm_uniform"}, "sigma_schedule"),
        ({"name": "dpmpp_2m", "solver_order": 2.0}, "solver_order"),
        ({"name": "dpmpp_2m", "algorithm_type": "dpmsolver"}, "algorithm_type"),
        ({"name": "dpmpp_2m", "solver_type": "bh2"}, "solver_type"),
        ({"name": "unipc", "solver_type": "heun"}, "solver_type"),
        ({"name": "euler", "beta_schedule": "sigmoid"}, "beta_schedule"),
        ({"name": "euler", "timestep_spacing": "even"}, "timestep_spacing"),
        ({"name": "euler", "beta_start": "small"}, "beta_start"),
        ({"name": "flow_match_euler", "shift": 0}, "shift"),
    ],
)
def test_a_config_with_an_invalid_value_is_refused(settings: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(**settings)
    assert caught.value.name == wrong


@pytest.mark.parametrize(
    ("config", "steps", "wrong"),
    [
        (make_config("euler"), 0, "num_inference_steps"),
        (make_config("euler"), 1001, "num_inference_steps"),
        (make_config("lcm"), 51, "num_inference_steps"),
        (make_config("dpmpp_2m", timestep_spacing="leading"), 1000, "num_inference_steps"),
        (make_config("ddim", timestep_spacing="leading", steps_offset=1), 1000, "steps_offset"),
        (make_config("ddim", rescale_betas_zero_snr=True), 4, "prediction_type"),
        (make_config("lcm", rescale_betas_zero_snr=True), 4, "prediction_type"),
    ],
)
def test_an_impossible_number_of_steps_is_refused(config: SchedulerConfig, steps: int, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_table(config, steps)
    assert caught.value.name == wrong


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({}, "_class_name"),
        ({"_class_name": "PNDMScheduler"}, "_class_name"),
        ({"_class_name": "DDIMScheduler"}, "clip_sample"),  # diffusers clips by default
        ({"_class_name": "LCMScheduler", "thresholding": True}, "thresholding"),
        ({"_class_name": "HeunDiscreteScheduler", "clip_sample": True}, "clip_sample"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "base_image_seq_len": 4096}, "max_image_seq_len"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "time_shift_type": "square"}, "time_shift_type"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ({"_class_name": "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0"),
        ({"_class_name": "UniPCMultistepScheduler", "disable_corrector": [0]}, "disable_corrector"),
        ({"_class_name": "UniPCMultistepScheduler", "solver_order": 3}, "solver_order"),
        ({"_class_name": "EulerDiscreteScheduler", "use_lu_lambdas": True}, "use_lu_lambdas"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "use_beta_sigmas": True}, "use_beta_sigmas"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "sigma_schedule": "simple"}, "use_karras_sigmas"),
        ({"_class_name": "EulerDiscreteScheduler", "sigma_schedule": "even"}, "sigma_schedule"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4}, "solver_order"),
        ({"_class_name": "DPMSolverMultistepScheduler", "variance_type": "learned"}, "variance_type"),
        ({"_class_name": "DDPMScheduler", "clip_sample": False, "variance_type": "learned_range"}, "variance_type"),
        ({"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}, "prediction_type"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type"),
        ({"_class_name": "EulerAncestralDiscreteScheduler", "use_karras_sigmas": True}, "use_karras_sigmas"),
    ],
)
def test_an_unsupported_diffusers_config_is_refused(found: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_diffusers(found)
    assert caught.value.name == wrong


@pytest.mark.parametrize(("tokens", "mu"), [(256, 0.5), (4096, 1.15), (1024, 0.63)])
def test_dynamic_shifting_depends_on_the_number_of_tokens(tokens: int, mu: float) -> None:
    """As diffusers' calculate_shift: linear in the tokens, and the noise levels of the pipelines that use it."""
    config = from_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True})
    table = build_table(config, 4, tokens)
    times = np.array([1.0, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(table.noise_levels[:4], math.exp(mu) / (math.exp(mu) + 1 / times - 1))
    linear = build_table(replace(config, time_shift_type="linear"), 4, tokens)
    np.testing.assert_allclose(linear.noise_levels[:4], mu / (mu + 1 / times - 1))
    with pytest.raises(ConfigError, match="number of latent tokens"):
        build_table(config, 4)


def test_shift_terminal_sets_the_last_noise_level() -> None:
    config = from_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "shift_terminal": 0.1})
    table = build_table(config, 5)
    assert table.noise_levels[-2:].tolist() == pytest.approx([0.1, 0.0])
    assert table.noise_levels[0] == pytest.approx(1.0)


def test_a_diffusers_config_is_read() -> None:
    text = """{"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.39.0", "use_flow_sigmas": true, "flow_shift": 3,
        "prediction_type": "flow_prediction", "lambda_min_clipped": -Infinity, "skip_prk_steps": true, "use_karras_sigmas": null}"""
    config = from_diffusers(json.loads(text))
    assert (config.name, config.shift, config.sigma_schedule) == ("flow_dpmpp_2m", 3, "timesteps")
    assert from_diffusers({"_class_name": "DDIMScheduler", "clip_sample": False}, eta=0.5).eta == 0.5
    assert from_diffusers({"_class_name": "UniPCMultistepScheduler", "solver_type": "midpoint"}).solver_type == "bh2"


# --- comparison with diffusers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One diffusers scheduler and its settings."""

    class_name: str
    settings: dict[str, Any] = field(default_factory=dict)
    eta: float | None = None
    """Argument of DDIMScheduler.step."""

    def __getitem__(self, setting: str) -> Any:
        return self.settings.get(setting, False)

    def __str__(self) -> str:
        shown = {key: value for key, value in self.settings.items() if value is not False and key not in STABLE_DIFFUSION}
        return "-".join([self.class_name.removesuffix("Scheduler"), *(f"{k}={v}" for k, v in shown.items()), f"eta={self.eta}"])


VARIANTS: tuple[Case, ...] = (
    Case("DDIMScheduler", {"clip_sample": False}, eta=0.0),
    Case("DDIMScheduler", {"clip_sample": False, "steps_offset": 1, "set_alpha_to_one": False}, eta=0.7),
    Case("EulerDiscreteScheduler"),
    Case("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min", "steps_offset": 1}),
    Case("EulerAncestralDiscreteScheduler"),
    Case("DPMSolverMultistepScheduler"),
    Case("DPMSolverMultistepScheduler", {"solver_type": "heun", "steps_offset": 1}),
    Case("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
    Case("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "euler_at_final": True, "solver_type": "heun"}),
    Case("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "lower_order_final": False, "solver_type": "heun"}),
    Case("DPMSolverMultistepScheduler", {"solver_order": 1}),
    Case("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    Case("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
    Case("HeunDiscreteScheduler"),
    Case("LCMScheduler"),
    Case("UniPCMultistepScheduler"),
    Case("UniPCMultistepScheduler", {"solver_order": 1, "steps_offset": 1}),
    Case("UniPCMultistepScheduler", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    Case("UniPCMultistepScheduler", {"lower_order_final": False, "final_sigmas_type": "sigma_min"}),
)
FLOWS: tuple[Case, ...] = (
    Case("FlowMatchEulerDiscreteScheduler"),
    Case("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    Case("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_karras_sigmas": True}),
    Case("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    *(
        Case("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} | more)
        for more in (
            {},
            {"flow_shift": 3.0},
            {"flow_shift": 3.0, "solver_type": "heun"},
            {"solver_order": 1},
            {"final_sigmas_type": "sigma_min"},
            {"algorithm_type": "sde-dpmsolver++"},
            {"use_karras_sigmas": True},
        )
    ),
    *(
        Case("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} | more)
        for more in ({}, {"flow_shift": 3.0}, {"flow_shift": 3.0, "solver_type": "bh1", "final_sigmas_type": "sigma_min"})
    ),
    Case("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "shift_terminal": 0.02}),
)
OTHER_BETAS: tuple[Case, ...] = (  # squaredcos with zero terminal SNR is left out: near t = 0 it depends on the last bit of torch's sqrt
    Case("DDIMScheduler", {"clip_sample": False, "beta_schedule": "squaredcos_cap_v2"}, eta=0.0),
    Case("EulerDiscreteScheduler", {"beta_schedule": "linear", "rescale_betas_zero_snr": True}),
    Case("EulerDiscreteScheduler", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}),
    Case("DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}),
    Case("DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}),
    Case("DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "timestep_spacing": "trailing"}),
    Case("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}),
    Case("LCMScheduler", {"original_inference_steps": 100, "timestep_scaling": 5.0}),
)


def all_cases() -> Iterator[Case]:
    spacings = ("trailing", "leading", "linspace")
    for case, prediction, spacing, karras, zero in itertools.product(VARIANTS, PREDICTIONS, spacings, (False, True), (False, True)):
        more: dict[str, Any] = {"prediction_type": prediction, "timestep_spacing": spacing}
        more |= {"use_karras_sigmas": True} if karras else {}
        more |= {"rescale_betas_zero_snr": True} if zero else {}
        yield replace(case, settings=STABLE_DIFFUSION | case.settings | more)
    yield from FLOWS
    yield from (replace(case, settings=STABLE_DIFFUSION | case.settings) for case in OTHER_BETAS)


def starts_without_signal(case: Case, steps: int) -> bool:
    """Whether a run visits the last training timestep."""
    reaches = case["timestep_spacing"] == "trailing" or (case["timestep_spacing"] == "linspace" and steps > 1)
    return bool(case["rescale_betas_zero_snr"]) and (reaches or case.class_name == "LCMScheduler")


DIFFUSERS_CANNOT: dict[str, Callable[[Case, int], bool]] = {
    "DDIM, Euler ancestral and LCM have no Karras sigmas": lambda case, _: bool(
        case["use_karras_sigmas"] and case.class_name in ("DDIMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler")
    ),
    "Heun has no zero terminal SNR": lambda case, _: bool(case["rescale_betas_zero_snr"] and case.class_name == "HeunDiscreteScheduler"),
    "only DPMSolverMultistep and UniPC have flow_prediction (FlowMatchEuler has no prediction type)": lambda case, _: bool(
        case["prediction_type"] == "flow_prediction" and case.class_name not in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
    ),
    "Euler ancestral has no sample prediction": lambda case, _: bool(
        case["prediction_type"] == "sample" and case.class_name == "EulerAncestralDiscreteScheduler"
    ),
    "epsilon without signal does not determine the image (division by 0 in DDIM and LCM)": lambda case, steps: bool(
        case["prediction_type"] == "epsilon" and case.class_name in ("DDIMScheduler", "LCMScheduler") and starts_without_signal(case, steps)
    ),
    "a single step cannot start at pure noise and be stretched to the terminal level (0 / 0)": lambda case, steps: bool(
        case["shift_terminal"] and steps == 1
    ),
    "Karras sigmas replace flow sigmas but are read as flow times (logarithm of a negative number)": lambda case, _: bool(
        case["use_karras_sigmas"] and case["use_flow_sigmas"]
    ),
}
ZERO_STEP = "Karras sigmas end at sigma_min, where solver_type heun divides by a last step of length 0"
"""The only case that diffusers cannot run but a table can, with a last row that changes nothing."""


def why_diffusers_cannot(case: Case, steps: int) -> str | None:
    ends_flat = case["use_karras_sigmas"] and case["final_sigmas_type"] == "sigma_min" and case["solver_type"] == "heun"
    reasons = [reason for reason, holds in DIFFUSERS_CANNOT.items() if holds(case, steps)]
    if not reasons and not is_meaningless(case) and ends_flat and case.settings.get("lower_order_final") is False and steps > 1:
        return ZERO_STEP
    return reasons[0] if reasons else None


def is_meaningless(case: Case) -> bool:
    """Whether the case has flow_prediction without flow sigmas, for which diffusers' x - sigma * m is not the clean latent."""
    return bool(case["prediction_type"] == "flow_prediction" and not case["use_flow_sigmas"])


def loses_digits(case: Case) -> bool:
    """Whether a step is so large (4096 to 1; 15 to 0.03 in heun's corrector) that float32 rounding exceeds 1e-5 of its result."""
    return case.class_name == "HeunDiscreteScheduler" or (case.class_name.startswith("Euler") and case["rescale_betas_zero_snr"])


FOLLOWED = [case for case in all_cases() if not is_meaningless(case) and None in {why_diffusers_cannot(case, steps) for steps in STEPS}]
REFUSED = [case for case in all_cases() if any(why_diffusers_cannot(case, steps) for steps in STEPS)]
NO_DIFFUSERS = "compares with the schedulers of diffusers, and diffusers or torch is missing: pip install costroute-rt[export]"
NOISE = np.random.default_rng(11).standard_normal((100, 2, 8))


def predict(x: FloatArray, timestep: float) -> FloatArray:
    """The output of a toy denoiser."""
    return np.asarray(0.8 * np.tanh(x + np.cos(timestep / 200)))


class InDouble:
    """The torch module with float32 replaced by float64, for diffusers' step."""

    def __init__(self, torch: Any) -> None:
        self.torch, self.float32 = torch, torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self.torch, name)


def run_diffusers(case: Case, steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[FloatArray]]:
    """Run diffusers' scheduler on NOISE; returns it and x before each step and at the end."""
    diffusers, torch = (pytest.importorskip(name, reason=NO_DIFFUSERS) for name in ("diffusers", "torch"))
    scheduler = getattr(diffusers, case.class_name)(**case.settings)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # else diffusers skips a step if rounding made the first two timesteps equal
    row = 0
    module = sys.modules[type(scheduler).__module__]
    monkeypatch.setattr(module, "randn_tensor", lambda *_args, **_settings: torch.from_numpy(NOISE[row + 1]), raising=False)
    if loses_digits(case):
        scheduler.sigmas = scheduler.sigmas.double()
        monkeypatch.setattr(module, "torch", InDouble(torch))
    x = torch.from_numpy(NOISE[0]) * getattr(scheduler, "init_noise_sigma", 1.0)
    visited = [x.numpy()]
    for row, timestep in enumerate(scheduler.timesteps):  # noqa: B007
        shown = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
        m = torch.from_numpy(predict(shown.double().numpy(), float(timestep)))
        x = scheduler.step(m, timestep, x, **({} if case.eta is None else {"eta": case.eta})).prev_sample
        visited.append(x.numpy())
    return scheduler, visited


def read_case(case: Case) -> SchedulerConfig:
    return from_diffusers({"_class_name": case.class_name} | case.settings, eta=case.eta or 0.0)


def compared_with_diffusers(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that needs the export extra, and ignore diffusers' own warnings."""
    old = ("ignore:__array__ implementation:DeprecationWarning", "ignore:__array_wrap__ must accept:DeprecationWarning")
    ignored = (*old, "ignore:invalid value:RuntimeWarning", "ignore:divide:RuntimeWarning")
    marked: Callable[..., None] = pytest.mark.export(pytest.mark.filterwarnings(*ignored)(test))
    return marked


@compared_with_diffusers
@pytest.mark.parametrize("case", FOLLOWED, ids=str)
def test_a_table_follows_the_diffusers_scheduler(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every intermediate latent agrees within 1e-5 of its largest element."""
    for steps in STEPS:
        if why_diffusers_cannot(case, steps):
            continue
        with monkeypatch.context() as patch:
            scheduler, expected = run_diffusers(case, steps, patch)
        table = build_table(read_case(case), steps)
        np.testing.assert_allclose(table.timestep, scheduler.timesteps, atol=2e-3, err_msg=f"{steps} steps")
        x, d, y = NOISE[0] * table.initial_noise_scale, None, None
        for i, after in enumerate(expected[1:]):
            x, d, y = advance(table, i, x, predict(table.input_scale[i] * x, table.timestep[i]), d, NOISE[i + 1], y)
            np.testing.assert_allclose(x, after, rtol=0, atol=1e-5 * np.abs(after).max(), err_msg=f"{steps} steps, row {i}")
        assert i + 1 == len(table)


@compared_with_diffusers
@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_cases_that_diffusers_cannot_run_are_refused(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers raises or gives latents that are not finite in the cases of `DIFFUSERS_CANNOT`; here they raise ConfigError."""
    for steps in STEPS:
        reason = why_diffusers_cannot(case, steps)
        if reason is None:
            continue
        try:
            with monkeypatch.context() as patch:
                _, visited = run_diffusers(case, steps, patch)
        except (TypeError, ValueError, NotImplementedError):
            pass
        else:
            assert not np.isfinite(visited).all(), reason
        if reason == ZERO_STEP:
            last = build_table(read_case(case), steps).rows()[-1]
            np.testing.assert_allclose(last[5:], [1, 0, 0, 0], atol=1e-9)
            continue
        with pytest.raises(ConfigError):
            build_table(read_case(case), steps)


@compared_with_diffusers
def test_flow_prediction_without_flow_sigmas_is_refused() -> None:
    """diffusers does not raise, but with a perfect denoiser it does not end at the clean latent."""
    diffusers, torch = (pytest.importorskip(name, reason=NO_DIFFUSERS) for name in ("diffusers", "torch"))
    case = Case("DPMSolverMultistepScheduler", STABLE_DIFFUSION | {"prediction_type": "flow_prediction"})
    scheduler = diffusers.DPMSolverMultistepScheduler(**case.settings)
    scheduler.set_timesteps(20)
    noise, clean = torch.from_numpy(NOISE[0]), torch.from_numpy(NOISE[1])
    x = noise
    for timestep in scheduler.timesteps:
        x = scheduler.step(noise - clean, timestep, x).prev_sample
    assert np.abs(x.numpy() - clean.numpy()).max() > 0.1
    with pytest.raises(ConfigError):
        read_case(case)


@compared_with_diffusers
@pytest.mark.parametrize("class_name", sorted({case.class_name for case in (*VARIANTS, *FLOWS)}))
def test_missing_settings_have_the_defaults_of_diffusers(class_name: str) -> None:
    diffusers = pytest.importorskip("diffusers", reason=NO_DIFFUSERS)
    scheduler = getattr(diffusers, class_name)()
    given = {"_class_name": class_name, "clip_sample": False}
    assert from_diffusers(given) == from_diffusers(dict(scheduler.config) | given)
    refused = [key for key in ("clip_sample", "thresholding") if scheduler.config.get(key)]
    assert refused == (["clip_sample"] if class_name == "DDIMScheduler" else [])


@compared_with_diffusers
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("has_zero_snr", [False, True])
def test_the_training_schedule_equals_that_of_diffusers(beta_schedule: str, has_zero_snr: bool) -> None:
    diffusers = pytest.importorskip("diffusers", reason=NO_DIFFUSERS)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=beta_schedule, rescale_betas_zero_snr=has_zero_snr
    )
    ours = alphas_cumprod(1000, 0.00085, 0.012, beta_schedule, has_zero_snr)
    np.testing.assert_allclose(ours, scheduler.alphas_cumprod.double(), rtol=4e-5 if has_zero_snr else 2e-7)
