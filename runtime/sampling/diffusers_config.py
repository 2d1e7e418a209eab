"""Reading of diffusers' scheduler configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import NamedTuple

from costroute_rt.error import ConfigError
from costroute_rt.sampling.scheduler_config import KINDS, SchedulerConfig


def from_diffusers(scheduler_config: Mapping[str, object], *, eta: float = 0.0) -> SchedulerConfig:
    """The configuration in diffusers' scheduler_config.json; missing settings have the defaults of its `_class_name`.

    eta: of ddim, which diffusers takes per call. Raises ConfigError for an unknown class, for settings whose steps are not linear
    (clip_sample, thresholding), and for settings that are not supported here.
    """
    class_name = scheduler_config.get("_class_name")
    known = _DIFFUSERS.get(str(class_name))
    if known is None:
        raise ConfigError("_class_name", class_name, f"one of {', '.join(_DIFFUSERS)}")
    for setting in known.refusable:
        wanted, why = _REFUSALS[setting]
        found = scheduler_config.get(setting, known.defaults.get(setting, wanted))
        if found != wanted and (found, wanted) != (None, False):
            raise ConfigError(setting, found, f"{wanted}: {why}")
    own = {field.name for field in fields(SchedulerConfig)} - {"name", "shift"}
    values = dict(known.defaults) | {key: value for key, value in scheduler_config.items() if value is not None}
    flows = bool(values.get("use_flow_sigmas"))
    name = f"flow_{known.name}" if flows and f"flow_{known.name}" in KINDS else known.name
    shift = values.get("flow_shift" if flows else "shift", 1.0)
    chosen = {key: value for key, value in values.items() if key in own}
    if "solver_type" in chosen and chosen["solver_type"] not in KINDS[name].solver_types:
        chosen["solver_type"] = known.defaults.get("solver_type", "midpoint")  # diffusers replaces it too
    return SchedulerConfig(**(chosen | {"name": name, "shift": shift, "eta": eta}))  # type: ignore[arg-type]


class _DiffusersClass(NamedTuple):
    name: str
    defaults: dict[str, object]
    """Defaults that differ from those of `SchedulerConfig`, and the defaults of settings in `_REFUSALS`."""
    refusable: tuple[str, ...]
    """Settings of this class for which only one value, that of `_REFUSALS`, is supported."""


_REFUSALS: dict[str, tuple[object, str]] = {
    "clip_sample": (False, "clipping is not linear; latent models do not need it"),
    "thresholding": (False, "thresholding is not linear; latent models do not need it"),
    "trained_betas": (None, "the schedule is given by beta_start, beta_end and beta_schedule"),
    "use_exponential_sigmas": (False, "use_karras_sigmas or plain timesteps"),
    "use_beta_sigmas": (False, "use_karras_sigmas or plain timesteps"),
    "use_lu_lambdas": (False, "use_karras_sigmas or plain timesteps"),
    "use_dynamic_shifting": (False, "only FlowMatchEulerDiscreteScheduler is compiled with it; give a fixed flow_shift"),
    "predict_x0": (True, "the solver of predicted noise is not compiled"),
    "disable_corrector": ([], "the corrector runs at every step"),
    "solver_p": (None, "another scheduler's predictor is not compiled"),
    "invert_sigmas": (False, "inverted flow times are not compiled"),
    "interpolation_type": ("linear", "log_linear sigmas are not compiled"),
    "timestep_type": ("discrete", "continuous timesteps are not compiled"),
    "sigma_min": (None, "the range is that of the training schedule"),
    "sigma_max": (None, "the range is that of the training schedule"),
    "variance_type": (None, "the denoiser must predict no variance"),
}
_TRAINING: dict[str, object] = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "prediction_type": "epsilon"}
_SIGMAS = ("trained_betas", "use_exponential_sigmas", "use_beta_sigmas")
_DIFFUSERS = {
    "DDIMScheduler": _DiffusersClass(
        "ddim", _TRAINING | {"timestep_spacing": "leading", "clip_sample": True}, ("clip_sample", "thresholding", "trained_betas")
    ),
    "EulerDiscreteScheduler": _DiffusersClass(
        "euler",
        _TRAINING | {"timestep_spacing": "linspace"},
        (*_SIGMAS, "interpolation_type", "timestep_type", "sigma_min", "sigma_max"),
    ),
    "EulerAncestralDiscreteScheduler": _DiffusersClass("euler_ancestral", _TRAINING | {"timestep_spacing": "linspace"}, ("trained_betas",)),
    "DPMSolverMultistepScheduler": _DiffusersClass(
        "dpmpp_2m",
        _TRAINING | {"timestep_spacing": "linspace"},
        (*_SIGMAS, "thresholding", "use_lu_lambdas", "use_dynamic_shifting", "variance_type"),
    ),
    "HeunDiscreteScheduler": _DiffusersClass(
        "heun",
        _TRAINING | {"beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "linspace"},
        (*_SIGMAS, "clip_sample"),
    ),
    "LCMScheduler": _DiffusersClass(
        "lcm", {"prediction_type": "epsilon", "timestep_spacing": "leading"}, ("clip_sample", "thresholding", "trained_betas")
    ),
    "FlowMatchEulerDiscreteScheduler": _DiffusersClass(
        "flow_match_euler",
        {"prediction_type": "flow_prediction"},
        ("use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas"),
    ),
    "UniPCMultistepScheduler": _DiffusersClass(
        "unipc",
        _TRAINING | {"timestep_spacing": "linspace", "solver_type": "bh2"},
        (
            *_SIGMAS,
            "thresholding",
            "use_dynamic_shifting",
            "predict_x0",
            "disable_corrector",
            "solver_p",
            "sigma_min",
            "sigma_max",
        ),
    ),
}

SUPPORTED = tuple(_DIFFUSERS)
"""Classes of diffusers that can be compiled."""
