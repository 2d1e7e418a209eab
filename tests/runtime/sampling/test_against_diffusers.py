"""More schedulers, step by step against diffusers, and against formulas of papers and k-diffusion where diffusers has none."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.parity.formula import sde_third_order
from costroute_rt.error import ConfigError
from costroute_rt.sampling.diffusers_config import from_diffusers
from costroute_rt.sampling.scheduler import build_table
from costroute_rt.sampling.scheduler_config import SchedulerConfig
from costroute_rt.sampling.sigma_spacing import space_levels
from costroute_rt.sampling.step_table import FloatArray, advance
from tests.runtime.sampling.test_scheduler import (
    NO_DIFFUSERS,
    NOISE,
    STABLE_DIFFUSION,
    Case,
    compared_with_diffusers,
    make_config,
    predict,
    run_diffusers,
)

STEPS = (1, 2, 4, 7, 20)
SPACINGS = ("leading", "linspace", "trailing")
FLAGS = ("use_karras_sigmas", "use_exponential_sigmas", *(["use_beta_sigmas"] if find_spec("scipy") else []))
"""diffusers needs scipy for beta sigmas; without it, only `test_beta_quantiles` tests them."""
BETA_QUANTILES = (1.0, 0.824319621347305, 0.5000000000000001, 0.17568037865269498, 0.0)
FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}


def run_table(config: SchedulerConfig, steps: int) -> list[FloatArray]:
    """x before each row and at the end, with the noise that `run_diffusers` uses."""
    table = build_table(config, steps)
    x, d, y = NOISE[0] * table.initial_noise_scale, None, None
    visited = [x]
    for i in range(len(table)):
        x, d, y = advance(table, i, x, predict(table.input_scale[i] * x, table.timestep[i]), d, NOISE[i + 1], y)
        visited.append(x)
    return visited


def compare(case: Case, monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...] = STEPS, **own: Any) -> None:
    """Every intermediate latent agrees within 1e-5 of its largest element.

    In two steps of KDPM2 ancestral, from 14.6 to 0.03, diffusers has few digits left in sigma_down, a difference of float32 squares.
    """
    for count in steps:
        with monkeypatch.context() as patch:
            scheduler, expected = run_diffusers(case, count, patch)
        config = from_diffusers({"_class_name": case.class_name} | case.settings | own, eta=case.eta)
        table = build_table(config, count)
        np.testing.assert_allclose(
            table.timestep, scheduler.timesteps, atol=0.02 if "Ancestral" in case.class_name else 2e-3, err_msg=f"{case}, {count} steps"
        )
        found = run_table(config, count)
        assert len(found) == len(expected)
        near = 1e-3 if case.class_name.startswith("KDPM2Ancestral") and count == 2 else 1e-5
        for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=near * np.abs(theirs).max(), err_msg=f"{case}, {count} steps, row {i}")


def stable(**settings: Any) -> dict[str, Any]:
    return {**STABLE_DIFFUSION, **settings}


def cases() -> Iterator[Case]:
    for spacing, prediction in itertools.product(SPACINGS, ("epsilon", "v_prediction")):
        spaced = stable(timestep_spacing=spacing, prediction_type=prediction, steps_offset=1)
        variance = "fixed_large" if prediction == "v_prediction" else "fixed_small"
        yield Case("DDPMScheduler", {**spaced, "clip_sample": False, "variance_type": variance})
    for name in ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"):
        yield from (Case(name, stable(timestep_spacing=spacing)) for spacing in SPACINGS)
        yield from (Case(name, stable(prediction_type="v_prediction", **{flag: True})) for flag in FLAGS)
    yield Case("DDPMScheduler", stable(clip_sample=False, variance_type="fixed_small_log"))
    yield Case("DDPMScheduler", stable(clip_sample=False, rescale_betas_zero_snr=True, prediction_type="v_prediction"))
    for eta, prediction in itertools.product((0.0, 0.3, 1.0), ("epsilon", "v_prediction", "sample")):
        yield Case("TCDScheduler", stable(prediction_type=prediction), eta=eta)
    for order, end, final in itertools.product((1, 2, 3), ("zero", "sigma_min"), (True, False)):
        own = {"solver_order": order, "final_sigmas_type": end, "lower_order_final": final}
        for kind, solver in itertools.product(("dpmsolver++", "sde-dpmsolver++"), ("midpoint", "heun")):
            if (order, kind, solver) != (3, "sde-dpmsolver++", "heun"):  # its sign is wrong there
                yield Case("DPMSolverSinglestepScheduler", stable(**own, algorithm_type=kind, solver_type=solver))
        yield Case("DPMSolverSinglestepScheduler", stable(**own, **FLOW))
        yield Case("DPMSolverSinglestepScheduler", stable(**own, use_karras_sigmas=True, prediction_type="v_prediction"))
    yield from (Case("DPMSolverSinglestepScheduler", stable(**{flag: True})) for flag in FLAGS[1:])
    for spacing, end, final in itertools.product(SPACINGS, ("zero", "sigma_min"), (True, False)):
        yield Case(
            "DPMSolverMultistepScheduler",
            stable(solver_order=3, timestep_spacing=spacing, final_sigmas_type=end, lower_order_final=final),
        )
    yield Case("DPMSolverMultistepScheduler", stable(solver_order=3, **FLOW))
    yield Case("DPMSolverMultistepScheduler", stable(solver_order=3, euler_at_final=True, solver_type="heun", use_karras_sigmas=True))
    for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"):
        yield from (Case(name, stable(timestep_spacing="leading", steps_offset=1, **{flag: True})) for flag in FLAGS[1:])
    yield Case("DPMSolverMultistepScheduler", stable(use_lu_lambdas=True))
    yield from (Case("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, flag: True}) for flag in FLAGS[1:])
    yield Case("FlowMatchHeunDiscreteScheduler", {"shift": 3.0})


@compared_with_diffusers
@pytest.mark.parametrize("name", sorted({case.class_name for case in cases()}))
def test_tables_follow_diffusers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for case in cases():
        if case.class_name == name:
            compare(case, monkeypatch)


@compared_with_diffusers
@pytest.mark.parametrize("flag", [None, *FLAGS])
def test_dpmpp_sde_follows_diffusers_along_one_brownian_path(flag: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchsde's tree is replaced by a path of two increments per step, the rows' noise; what remains different is the tree's numbers."""
    torch = pytest.importorskip("torch", reason=NO_DIFFUSERS)
    monkeypatch.setitem(sys.modules, "torchsde", ModuleType("torchsde"))
    module = pytest.importorskip("diffusers.schedulers.scheduling_dpmsolver_sde", reason=NO_DIFFUSERS)
    settings: dict[str, Any] = stable(timestep_spacing="leading") | (
        {} if flag is None else {flag: True, "prediction_type": "v_prediction"}
    )
    config = from_diffusers({"_class_name": "DPMSolverSDEScheduler"} | settings)
    row = 0

    def path(start: Any, end: Any) -> Any:
        """The increment from start to end, of unit variance: the first of a step, or both."""
        if row % 2 == 0:
            return torch.from_numpy(NOISE[row + 1])
        share = float((start - (start * end) ** 0.5) / (start - end)) ** 0.5
        return torch.from_numpy(share * NOISE[row] + math.sqrt(1 - share**2) * NOISE[row + 1])

    for count in STEPS:
        scheduler = module.DPMSolverSDEScheduler(**settings)
        scheduler.set_timesteps(count)
        scheduler.sigmas = scheduler.sigmas.double()
        scheduler.noise_sampler = path
        x, expected = torch.from_numpy(NOISE[0]) * scheduler.init_noise_sigma, []
        for row, timestep in enumerate(scheduler.timesteps):  # noqa: B007
            m = torch.from_numpy(predict(scheduler.scale_model_input(x, timestep).numpy(), float(timestep)))
            x = scheduler.step(m, timestep, x).prev_sample
            expected.append(x.numpy())
        for i, (ours, theirs) in enumerate(zip(run_table(config, count)[1:], expected, strict=True)):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(), err_msg=f"{count} steps, row {i}")


@compared_with_diffusers
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_the_third_order_sde_has_the_right_sign(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers 0.39's third order of sde-dpmsolver++ does not approach its second order for small steps; ours does.

    Tables follow diffusers with the corrected formula, and differ from diffusers as it is.
    """
    diffusers = pytest.importorskip("diffusers", reason=NO_DIFFUSERS)
    case = Case("DPMSolverMultistepScheduler", stable(solver_order=3, algorithm_type="sde-dpmsolver++", final_sigmas_type=end))
    with pytest.raises(AssertionError, match="20 steps"):
        compare(case, monkeypatch, (20,))
    monkeypatch.setattr(diffusers.DPMSolverMultistepScheduler, "multistep_dpm_solver_third_order_update", sde_third_order)
    compare(case, monkeypatch)


def run_k_diffusion(config: SchedulerConfig, steps: int, solve: Callable[..., FloatArray]) -> FloatArray:
    """The last latent of one of k-diffusion's samplers over the steps of a table; solve: one step of it."""
    table = build_table(config, steps)
    stride = (len(table) + 1) // steps
    sigmas = np.append(table.noise_levels[:-1:stride], 0.0)
    known = dict(zip(table.noise_levels.tolist(), table.timestep.tolist(), strict=False))

    def denoise(x: FloatArray, sigma: float) -> FloatArray:
        nearest = min(known, key=lambda level: abs(level - sigma))
        assert nearest == pytest.approx(sigma, rel=1e-9)
        return np.asarray(x - sigma * predict(x / math.hypot(sigma, 1), known[nearest]))

    x, state = NOISE[0] * sigmas[0], {}
    for i in range(steps):
        noise = NOISE[(i + 1) * stride] if i < steps - 1 else np.zeros_like(x)
        x = solve(denoise, x, float(sigmas[i]), float(sigmas[i + 1]), noise, state)
    return x


def sample_dpmpp_2s_ancestral(denoise: Any, x: FloatArray, now: float, after: float, noise: FloatArray, _: Any) -> FloatArray:
    """k-diffusion's sample_dpmpp_2s_ancestral, with eta 1."""
    denoised = denoise(x, now)
    up = min(after, (after**2 * (now**2 - after**2) / now**2) ** 0.5)
    down = (after**2 - up**2) ** 0.5
    if after == 0:
        return np.asarray(denoised)
    t, t_next = -math.log(now), -math.log(down)
    h = t_next - t
    middle = math.exp(-(t + 0.5 * h))
    x_2 = middle / now * x - math.expm1(-0.5 * h) * denoised
    return np.asarray(down / now * x - math.expm1(-h) * denoise(x_2, middle) + up * noise)


def sample_dpmpp_3m_sde(denoise: Any, x: FloatArray, now: float, after: float, noise: FloatArray, state: Any) -> FloatArray:
    """k-diffusion's sample_dpmpp_3m_sde, with eta 1."""
    denoised = denoise(x, now)
    if after == 0:
        return np.asarray(denoised)
    h = math.log(now) - math.log(after)
    h_eta = 2 * h
    x = math.exp(-h_eta) * x - math.expm1(-h_eta) * denoised
    phi_2 = math.expm1(-h_eta) / h_eta + 1
    phi_3 = phi_2 / h_eta - 0.5
    if "h_2" in state:
        r0, r1 = state["h_1"] / h, state["h_2"] / h
        d1_0, d1_1 = (denoised - state["d_1"]) / r0, (state["d_1"] - state["d_2"]) / r1
        d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
        x = x + phi_2 * d1 - phi_3 * (d1_0 - d1_1) / (r0 + r1)
    elif "h_1" in state:
        x = x + phi_2 * (denoised - state["d_1"]) / (state["h_1"] / h)
    x = x + noise * after * (-math.expm1(-2 * h)) ** 0.5
    if "h_1" in state:
        state["h_2"], state["d_2"] = state["h_1"], state["d_1"]
    state["h_1"], state["d_1"] = h, denoised
    return x


@pytest.mark.parametrize("schedule", ["timesteps", "exponential"])
@pytest.mark.parametrize("steps", STEPS)
def test_schedulers_of_k_diffusion_that_diffusers_lacks(steps: int, schedule: str) -> None:
    config = make_config("dpmpp_2s_ancestral", sigma_schedule=schedule, timestep_spacing="linspace")
    expected = run_k_diffusion(config, steps, sample_dpmpp_2s_ancestral)
    np.testing.assert_allclose(run_table(config, steps)[-1], expected, atol=2e-5)  # timesteps of middles are interpolated again
    more = {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "lower_order_final": False}
    config = make_config("dpmpp_3m", sigma_schedule=schedule, timestep_spacing="linspace", **more)
    table = build_table(config, steps)
    x, d, y = NOISE[0] * (table.noise_levels[0] / math.hypot(table.noise_levels[0], 1)), None, None
    for i in range(steps):
        x, d, y = advance(table, i, x, predict(x, table.timestep[i]), d, NOISE[i + 1], y)
    np.testing.assert_allclose(x, run_k_diffusion(config, steps, sample_dpmpp_3m_sde), atol=1e-9)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("kind", ["dpmsolver++", "sde-dpmsolver++"])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize("form", ["m", "s"])
def test_every_order_of_dpmpp_converges(form: str, kind: str, solver_type: str, order: int) -> None:
    """A D that is linear in log(alpha / sigma) is integrated exactly by phi functions, so the error falls with the square of the step."""
    more = {"sigma_schedule": "exponential", "final_sigmas_type": "sigma_min", "lower_order_final": False}
    config = make_config(f"dpmpp_{order}{form}", algorithm_type=kind, solver_type=solver_type, **more)

    def error(steps: int) -> float:
        table = build_table(config, steps)
        x, d, y = np.array([0.0]), None, None
        for i in range(steps):
            sigma = table.noise_levels[i]
            alpha = 1 / math.hypot(sigma, 1)
            wanted = np.array([-math.log(sigma)])
            m = (x - alpha * wanted) / (sigma * alpha)  # epsilon, with which D is `wanted`
            x, d, y = advance(table, i, x, m, d, np.zeros(1), y)
        return float(abs(x[0] - integral(table.noise_levels[0], table.noise_levels[-1], kind == "sde-dpmsolver++")))

    assert error(24) < 0.05
    assert error(96) < error(24) / 8 or error(24) < 1e-8


def integral(start: float, end: float, is_stochastic: bool) -> float:
    """The mean of x at `end` of a run from x = 0 at `start`, with D = log(alpha / sigma): alpha times a weighted mean of it."""
    times = np.linspace(-math.log(start), -math.log(end), 200_001)
    rate = 2.0 if is_stochastic else 1.0
    weights = rate * np.exp(-rate * (times[-1] - times)) * times
    return float((weights[1:] + weights[:-1]).sum() / 2 * (times[1] - times[0])) / math.hypot(end, 1)


def test_beta_quantiles() -> None:
    """Against SciPy 1.16's beta.ppf(share, 0.6, 0.6)."""
    config = make_config("euler", sigma_schedule="beta")
    levels = space_levels("beta", 1.0, 0.0, 5)
    np.testing.assert_allclose(levels, BETA_QUANTILES, atol=1e-12)
    assert build_table(config, 1).noise_levels[0] == pytest.approx(14.6146, abs=1e-4)
    with pytest.raises(ConfigError, match="beta_timesteps"):
        build_table(make_config("euler", sigma_schedule="beta_timesteps"), 500)


@compared_with_diffusers
@pytest.mark.parametrize(("name", "schedule"), [("StableDiffusion", "sd15"), ("StableDiffusionXL", "sdxl")])
def test_align_your_steps_are_those_of_diffusers(name: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("diffusers.schedulers", reason=NO_DIFFUSERS)
    diffusers = pytest.importorskip("diffusers", reason=NO_DIFFUSERS)
    config = make_config("euler", sigma_schedule=f"align_your_steps_{schedule}")
    scheduler = diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION)
    scheduler.set_timesteps(sigmas=utils.AysSchedules[f"{name}Sigmas"])
    table = build_table(config, 10)
    np.testing.assert_allclose(table.noise_levels, scheduler.sigmas, rtol=1e-6)
    np.testing.assert_allclose(table.timestep, scheduler.timesteps, atol=2e-3)
    for steps in STEPS:
        table = build_table(config, steps)
        assert table.noise_levels[0] == pytest.approx(14.615)
        assert (np.diff(table.noise_levels) < 0).all()


def test_simple_and_sgm_uniform_are_those_of_comfyui() -> None:
    """The levels that ComfyUI's simple_scheduler and normal_scheduler(sgm=True) choose from the model's 1000 sigmas."""
    sigmas = build_table(make_config("euler", timestep_spacing="linspace"), 1000).noise_levels[:-1][::-1]
    for steps in STEPS:
        simple = [sigmas[-(1 + int(x * len(sigmas) / steps))] for x in range(steps)]
        found = build_table(make_config("euler", sigma_schedule="simple"), steps)
        np.testing.assert_allclose(found.noise_levels[:-1], simple, rtol=1e-12)
        sgm = np.interp(np.linspace(999, 0, steps + 1)[:-1], np.arange(1000), sigmas)
        found = build_table(make_config("euler", sigma_schedule="sgm_uniform"), steps)
        np.testing.assert_allclose(found.noise_levels[:-1], sgm, rtol=1e-12)
        flow = build_table(make_config("flow_match_euler", sigma_schedule="simple", shift=3.0), steps)
        times = 1 - np.array([int(x * 1000 / steps) for x in range(steps)]) / 1000
        np.testing.assert_allclose(flow.noise_levels[:-1], 3 * times / (1 + 2 * times), rtol=1e-12)
