"""F17: sde-dpmsolver++ with Karras sigmas down to sigma_min gave NaN; no table of any scheduler may."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.sampling.diffusers_config import from_diffusers
from costroute_rt.sampling.scheduler import build_table, replan
from costroute_rt.sampling.step_table import StepTable, advance
from tests.runtime.sampling.test_scheduler import NOISE, Case, compared_with_diffusers, predict, read_case, run_diffusers

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SDE = {"_class_name": "DPMSolverMultistepScheduler", **STABLE_DIFFUSION, "algorithm_type": "sde-dpmsolver++"}
FLAT_END = {**SDE, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}
OPTIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "DDIMScheduler": {"clip_sample": (False,), "set_alpha_to_one": (True, False), "rescale_betas_zero_snr": (False, True)},
    "EulerDiscreteScheduler": {"use_karras_sigmas": (False, True), "final_sigmas_type": ("zero", "sigma_min")},
    "EulerAncestralDiscreteScheduler": {"rescale_betas_zero_snr": (False, True)},
    "DPMSolverMultistepScheduler": {
        "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
        "solver_type": ("midpoint", "heun"),
        "solver_order": (2, 3),
        "use_karras_sigmas": (False, True),
        "final_sigmas_type": ("zero", "sigma_min"),
        "lower_order_final": (True, False),
        "euler_at_final": (True, False),
    },
    "DPMSolverSinglestepScheduler": {
        "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
        "solver_type": ("midpoint", "heun"),
        "solver_order": (2, 3),
        "use_karras_sigmas": (False, True),
        "final_sigmas_type": ("zero", "sigma_min"),
    },
    "DDPMScheduler": {"clip_sample": (False,), "variance_type": ("fixed_small", "fixed_large"), "rescale_betas_zero_snr": (False, True)},
    "TCDScheduler": {"rescale_betas_zero_snr": (False, True), "eta": (0.0, 0.3, 1.0), "original_inference_steps": (100,)},
    "KDPM2DiscreteScheduler": {"use_karras_sigmas": (False, True)},
    "KDPM2AncestralDiscreteScheduler": {"use_exponential_sigmas": (False, True)},
    "DPMSolverSDEScheduler": {"use_beta_sigmas": (False, True)},
    "HeunDiscreteScheduler": {"use_karras_sigmas": (False, True)},
    "LCMScheduler": {"rescale_betas_zero_snr": (False, True), "original_inference_steps": (100,)},
    "UniPCMultistepScheduler": {
        "solver_type": ("bh1", "bh2"),
        "use_karras_sigmas": (False, True),
        "final_sigmas_type": ("zero", "sigma_min"),
        "lower_order_final": (True, False),
    },
}
SPACINGS = ("leading", "linspace", "trailing")


def configs() -> Iterator[dict[str, Any]]:
    """Every supported scheduler with each combination of its options, timestep spacing and prediction type."""
    for name, options in OPTIONS.items():
        for spacing, prediction, *values in itertools.product(SPACINGS, ("epsilon", "v_prediction"), *options.values()):
            own = dict(zip(options, values, strict=True))
            yield {"_class_name": name, **STABLE_DIFFUSION, "timestep_spacing": spacing, "prediction_type": prediction, **own}
    for shift, stochastic in itertools.product((0.3, 1.0, 3.0), (False, True)):
        yield {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift, "stochastic_sampling": stochastic}
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    for end, kind in itertools.product(("zero", "sigma_min"), ("dpmsolver++", "sde-dpmsolver++")):
        yield {"_class_name": "DPMSolverMultistepScheduler", "final_sigmas_type": end, "algorithm_type": kind, **flow}
        yield {"_class_name": "UniPCMultistepScheduler", "final_sigmas_type": end, **flow}


@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize("steps", range(1, 51))
def test_f17_karras_sde_ends_at_sigma_min(steps: int, solver_type: str) -> None:
    """The last step has length 0, not below it: the square root of -1e-17 is not a number."""
    table = build_table(from_diffusers(FLAT_END | {"solver_type": solver_type}), steps)
    assert np.isfinite(table.rows()).all()
    if steps > 1:
        assert table.noise_levels[-1] == table.noise_levels[-2]
        np.testing.assert_array_equal(table.rows()[-1, 5:], [1, 0, 0, 0])


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 13, 31, 60])
def test_f17_every_table_is_finite_or_refused(steps: int) -> None:
    """NumPy's warnings are errors in tests, so a division by zero cannot pass unseen either."""
    finite = 0
    for config in configs():
        scheduler = from_diffusers(config)
        try:
            table = build_table(scheduler, steps)
        except ConfigError as error:
            assert error.name == "prediction_type", config  # noqa: PT017  epsilon without signal
            continue
        assert np.isfinite(table.rows(memory=True)).all(), config
        if len(table) > 3:
            assert np.isfinite(replan(scheduler, table, 2, len(table) - 3).rows(memory=True)).all(), config
        finite += 1
    assert finite > 250


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        ({"_class_name": "UniPCMultistepScheduler"}, 1000),
        ({"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "linspace"}, 1000),
        ({"_class_name": "EulerDiscreteScheduler", "beta_start": 1e-8, "beta_end": 1e-8, "beta_schedule": "linear"}, 20),
        ({"_class_name": "LCMScheduler", "rescale_betas_zero_snr": True, "beta_start": 0.999}, 4),
    ],
)
def test_f17_a_schedule_that_divides_by_zero_is_refused(config: dict[str, Any], steps: int) -> None:
    with pytest.raises(ConfigError, match=f"num_inference_steps is {steps}: expected fewer steps.* would divide by zero"):
        build_table(from_diffusers(config), steps)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("rescale_betas_zero_snr", []),
        ("use_karras_sigmas", "yes"),
        ("lower_order_final", 1),
        ("beta_start", float("nan")),
        ("num_train_timesteps", 10**400),
        ("beta_schedule", {}),
    ],
)
def test_f17_a_setting_of_the_wrong_type_is_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{setting} is "):
        from_diffusers({**SDE, setting: value})


def test_f17_a_null_setting_has_its_default() -> None:
    assert from_diffusers({**SDE, "prediction_type": None, "solver_order": None}) == from_diffusers(SDE)


def follow(case: Case, table: StepTable, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares every latent of a run with diffusers', as long as diffusers' are finite."""
    with monkeypatch.context() as patch:
        _, expected = run_diffusers(case, steps, patch)
    x, d, y = NOISE[0] * table.initial_noise_scale, None, None
    for i, after in enumerate(expected[1:]):
        x, d, y = advance(table, i, x, predict(table.input_scale[i] * x, table.timestep[i]), d, NOISE[i + 1], y)
        if np.isfinite(after).all():
            np.testing.assert_allclose(x, after, rtol=0, atol=2e-5 * np.abs(after).max(), err_msg=f"{case}, {steps} steps, row {i}")
        else:
            assert case["solver_type"] == "heun", f"{case}, {steps} steps, row {i}"


@compared_with_diffusers
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize("lower_order_final", [True, False])
def test_f17_sde_follows_diffusers_for_1_to_50_steps(
    spacing: str, solver_type: str, lower_order_final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for karras, end in itertools.product((True, False), ("sigma_min", "zero")):
        settings = {**SDE, "use_karras_sigmas": karras, "final_sigmas_type": end, "solver_type": solver_type}
        settings |= {"timestep_spacing": spacing, "lower_order_final": lower_order_final}
        del settings["_class_name"]
        case = Case("DPMSolverMultistepScheduler", settings)
        for steps in range(1, 51):
            follow(case, build_table(read_case(case), steps), steps, monkeypatch)
