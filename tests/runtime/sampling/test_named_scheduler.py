"""Schedulers by name: each spelling means what its program means by it, for the model's own schedule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from costroute_rt.error import ConfigError
from costroute_rt.sampling.diffusers_config import SUPPORTED, from_diffusers
from costroute_rt.sampling.named_scheduler import NAMES, named_scheduler
from costroute_rt.sampling.replacement import REPLACEMENTS
from costroute_rt.sampling.scheduler import build_table
from costroute_rt.sampling.scheduler_config import KINDS
from costroute_rt.sampling.tables import Tables

SDXL = from_diffusers({
    "_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "prediction_type": "v_prediction", "timestep_spacing": "leading", "steps_offset": 1, "rescale_betas_zero_snr": True,
})  # fmt: skip
PLAIN = from_diffusers({"_class_name": "DDIMScheduler", "clip_sample": False, "steps_offset": 1, "original_inference_steps": 100})
FLUX = from_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True})


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (("Euler", "euler", "EulerDiscreteScheduler", "eulerdiscrete", "Euler automatic"), "euler"),
        (("Euler a", "euler_ancestral", "EulerAncestralDiscreteScheduler", "EULER A"), "euler_ancestral"),
        (("Heun", "HeunDiscreteScheduler"), "heun"),
        (("DPM2 a Karras", "dpm_2_ancestral/karras", "DPM2 a Automatic"), "kdpm2_ancestral karras"),
        (("DPM++ 2M Karras", "dpmpp_2m/karras", "DPM++ 2M Automatic", "dpm++ 2m   karras"), "dpmpp_2m karras"),
        (("DPM++ 2M SDE", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu"), "dpmpp_2m sde"),
        (("DPM++ 3M SDE Exponential", "dpmpp_3m_sde_gpu/exponential"), "dpmpp_3m sde exponential"),
        (("DPM++ SDE Karras", "dpmpp_sde/karras"), "dpmpp_sde karras"),
        (("DPM++ 2S a", "dpmpp_2s_ancestral"), "dpmpp_2s_ancestral"),
        (("DPMSolverSinglestepScheduler", "DPM++ 2S"), "dpmpp_2s"),
        (("UniPC", "uni_pc", "UniPCMultistepScheduler"), "unipc"),
        (("DPM++ 2M Beta",), "dpmpp_2m beta"),
        (("dpmpp_2m/beta",), "dpmpp_2m beta_timesteps"),
        (("Euler SGM Uniform", "euler/sgm_uniform"), "euler sgm_uniform"),
        (("ddim/karras",), "euler karras"),
        (("DPM++ 2M Align Your Steps SDXL",), "dpmpp_2m align_your_steps_sdxl"),
        (("LCM", "lcm/sgm_uniform", "LCMScheduler"), "lcm"),
        (("TCD", "TCDScheduler"), "tcd"),
        (("DDPM", "DDPMScheduler"), "ddpm"),
    ],
)
def test_every_spelling_of_a_scheduler(names: tuple[str, ...], title: str) -> None:
    for name in names:
        assert named_scheduler(name, PLAIN).config.title == title


def test_the_training_schedule_is_the_model_s() -> None:
    config = named_scheduler("DPM++ 2M", SDXL).config
    for field in ("beta_start", "beta_schedule", "prediction_type", "rescale_betas_zero_snr", "timestep_spacing", "steps_offset"):
        assert getattr(config, field) == getattr(SDXL, field)
    assert named_scheduler("TCD", PLAIN).config.original_inference_steps == 100
    assert named_scheduler("TCD", PLAIN).config.eta == 0.3
    assert named_scheduler("DPM++ 3M SDE", PLAIN).config.solver_type == "heun"
    assert [named_scheduler(name, PLAIN).config.solver_type for name in ("uni_pc", "uni_pc_bh2")] == ["bh1", "bh2"]
    flow = named_scheduler("Euler", FLUX).config
    assert flow == FLUX
    shifted = from_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    assert named_scheduler("dpmpp_2m/simple", shifted).config.shift == 3


@pytest.mark.parametrize("own", [{"use_karras_sigmas": True}, {"algorithm_type": "sde-dpmsolver++"}])
def test_a_name_without_a_schedule_means_none_whatever_the_model_has(own: dict[str, Any]) -> None:
    base = from_diffusers({"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "trailing"} | own)
    for name in ("DPM++ 2M", "DPMSolverMultistepScheduler", "PNDM"):
        found = named_scheduler(name, base).config
        assert (found.sigma_schedule, found.algorithm_type, found.timestep_spacing) == ("timesteps", "dpmsolver++", "trailing")


def test_a_schedule_spans_all_noise_levels_of_the_model() -> None:
    """A model's own spacing may leave out the highest; A1111's and ComfyUI's schedules start there."""
    table = build_table(named_scheduler("Euler Karras", PLAIN).config, 20)
    whole = build_table(named_scheduler("Euler Uniform", PLAIN).config, 1000).noise_levels
    assert (table.noise_levels[0], table.noise_levels[-2]) == pytest.approx((whole[0], whole[-2]))
    assert build_table(named_scheduler("Euler", PLAIN).config, 20).noise_levels[0] < whole[0] * 0.95


@pytest.mark.parametrize("name", ["Euler", "Euler Uniform", "Euler a Karras", "Heun", "DPM++ 2M Karras", "DPM++ SDE Exponential", "UniPC"])
def test_a_single_step_starts_at_the_highest_noise_level(name: str) -> None:
    tables = Tables({"own": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}})
    assert tables.table("own", 1, 1024, instead=name).timestep.tolist() == pytest.approx([999])


@pytest.mark.parametrize("name", [*NAMES, *SUPPORTED, *REPLACEMENTS, *KINDS])
def test_every_known_name_builds_a_table(name: str) -> None:
    base = FLUX if "flow" in name.lower() else PLAIN
    assert len(build_table(named_scheduler(name, base).config, 6, 1024)) in (6, 11)


@pytest.mark.parametrize("name", ["PNDMScheduler", "LMSDiscrete", "plms", "deis", "ipndm", "DPM fast", "UniPC", "sa_solver/karras"])
def test_a_replacement_says_what_it_replaces(name: str) -> None:
    note = named_scheduler(name, PLAIN).note
    assert note is not None
    assert " replaces " in note


def test_the_exact_ones_say_nothing() -> None:
    assert named_scheduler("DPM++ 2M Karras", PLAIN).note is None
    assert named_scheduler("KDPM2DiscreteScheduler", PLAIN).note is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("dpm++ 2m karas", "the nearest: .*karras"),
        ("EulerDiscretScheduler", "expected a name such as"),
        ("", "expected a name such as"),
        ("x" * 1_000_000, "expected a name such as"),
        ("DPM++ 2M Align Your Steps", "align your steps sd15"),
        ("LCM Karras", "timesteps of its own"),
        ("DPM++ 2M turbo", "expected a name such as"),
        ("euler_cfg_pp", "expected a name such as"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        named_scheduler(name, PLAIN)
    assert caught.value.name == "scheduler"
    assert len(str(caught.value)) < 300


def test_a_scheduler_that_cannot_run_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="the model is a flow model"):
        named_scheduler("Euler a", FLUX)
    assert named_scheduler("Heun", FLUX).config.title == "flow_heun"
    with pytest.raises(ConfigError, match="rescale_betas_zero_snr"):
        named_scheduler("Heun", SDXL)
    with pytest.raises(ConfigError, match=r"shift_terminal is 0\.02: expected 0 for flow_unipc"):
        named_scheduler("UniPC", replace(FLUX, shift_terminal=0.02))
    with pytest.raises(ConfigError, match="sigma_schedule is 'karras'"):
        named_scheduler("DPM++ 2M Karras", FLUX)
