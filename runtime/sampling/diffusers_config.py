"""Reading of diffusers' scheduler configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import NamedTuple

from costroute_rt.error import ConfigError
from costroute_rt.sampling.scheduler_config import KINDS, SchedulerConfig


def from_diffusers(scheduler_config: Mapping[str, object], *, eta: float | None = None) -> SchedulerConfig:
    """The configuration in diffusers' scheduler_config.json; missing settings have the defaults of its `_class_name`.

    Two settings may be in it that diffusers does not know: `sigma_schedule`, for those without a flag there, and `eta`, which diffusers
    takes per call. eta: replaces the setting. Raises ConfigError for an unknown class, for settings whose steps are not linear
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
    given = {key: value for key, value in scheduler_config.items() if value is not None and key not in known.ignored}
    values = {"eta": 0.0} | dict(known.defaults) | given
    flows = bool(values.get("use_flow_sigmas"))
    shift = values.get("flow_shift" if flows else "shift", 1.0)
    chosen = {key: value for key, value in values.items() if key in own}
    name = f"{'flow_' if flows else ''}{known.name}"
    if chosen.get("solver_order") == 3:
        name = name.replace("dpmpp_2", "dpmpp_3")
    if "solver_type" in chosen and chosen["solver_type"] not in KINDS[name].solver_types:
        chosen["solver_type"] = known.defaults.get("solver_type", "midpoint")  # diffusers replaces it too
    chosen |= {"name": name, "shift": shift, "sigma_schedule": _sigma_schedule(name, values)}
    return SchedulerConfig(**(chosen if eta is None else chosen | {"eta": eta}))  # type: ignore[arg-type]


def _sigma_schedule(name: str, values: Mapping[str, object]) -> object:
    """The sigma schedule by diffusers' flags, or by the setting of that name; raises ConfigError for two, and for a flag it cannot use."""
    for flag in _FLAGS:
        if not isinstance(values.get(flag, False), bool):
            raise ConfigError(flag, values[flag], "true or false")
    flags = [flag for flag in _FLAGS if values.get(flag)]
    given = values.get("sigma_schedule", "timesteps")
    if len(flags) > 1 or (flags and given != "timesteps"):
        raise ConfigError(flags[-1], True, f"false: {flags[0] if len(flags) > 1 else f'sigma_schedule {given}'} spaces the noise levels")
    if flags and _FLAGS[flags[0]] not in KINDS[name].sigma_schedules:
        raise ConfigError(flags[0], True, f"false for {name}")
    return _FLAGS[flags[0]] if flags else given


_FLAGS = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential", "use_beta_sigmas": "beta", "use_lu_lambdas": "lu"}


class _DiffusersClass(NamedTuple):
    name: str
    defaults: dict[str, object]
    """Defaults that differ from those of `SchedulerConfig`, and the defaults of settings in `_REFUSALS`."""
    refusable: tuple[str, ...]
    """Settings of this class for which only one value, that of `_REFUSALS`, is supported."""
    ignored: tuple[str, ...] = ("variance_type",)
    """Settings of others that this class does not have."""


_NO_FLAG = (False, "this class does not have the setting in diffusers; sigma_schedule sets it here")
_REFUSALS: dict[str, tuple[object, str]] = {
    **dict.fromkeys(_FLAGS, _NO_FLAG),
    "clip_sample": (False, "clipping is not linear; latent models do not need it"),
    "thresholding": (False, "thresholding is not linear; latent models do not need it"),
    "trained_betas": (None, "the schedule is given by beta_start, beta_end and beta_schedule"),
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
_LINSPACE = _TRAINING | {"timestep_spacing": "linspace"}
_LEADING = _TRAINING | {"timestep_spacing": "leading", "clip_sample": True}
_STABLE_DIFFUSION: dict[str, object] = _LINSPACE | {"beta_start": 0.00085, "beta_end": 0.012}
_NOT_LINEAR = ("clip_sample", "thresholding", "trained_betas")
_DPM = ("trained_betas", "thresholding", "use_dynamic_shifting", "variance_type")
_DIFFUSERS = {
    "DDIMScheduler": _DiffusersClass("ddim", _LEADING, _NOT_LINEAR),
    "DDPMScheduler": _DiffusersClass("ddpm", _LEADING, _NOT_LINEAR, ignored=()),
    "EulerDiscreteScheduler": _DiffusersClass(
        "euler", _LINSPACE, ("trained_betas", "interpolation_type", "timestep_type", "sigma_min", "sigma_max")
    ),
    "EulerAncestralDiscreteScheduler": _DiffusersClass("euler_ancestral", _LINSPACE, ("trained_betas", *_FLAGS)),
    "HeunDiscreteScheduler": _DiffusersClass("heun", _STABLE_DIFFUSION, ("trained_betas", "clip_sample")),
    "KDPM2DiscreteScheduler": _DiffusersClass("kdpm2", _STABLE_DIFFUSION, ("trained_betas",)),
    "KDPM2AncestralDiscreteScheduler": _DiffusersClass("kdpm2_ancestral", _STABLE_DIFFUSION, ("trained_betas",)),
    "DPMSolverSDEScheduler": _DiffusersClass("dpmpp_sde", _STABLE_DIFFUSION, ("trained_betas",)),
    "DPMSolverMultistepScheduler": _DiffusersClass("dpmpp_2m", _LINSPACE, _DPM),
    "DPMSolverSinglestepScheduler": _DiffusersClass(
        "dpmpp_2s",
        _LINSPACE | {"lower_order_final": False},
        _DPM,
        ignored=("variance_type", "timestep_spacing", "steps_offset", "rescale_betas_zero_snr"),
    ),
    "UniPCMultistepScheduler": _DiffusersClass(
        "unipc",
        _LINSPACE | {"solver_type": "bh2"},
        ("trained_betas", "thresholding", "use_dynamic_shifting", "predict_x0", "disable_corrector", "solver_p", "sigma_min", "sigma_max"),
    ),
    "LCMScheduler": _DiffusersClass("lcm", {"prediction_type": "epsilon", "timestep_spacing": "leading"}, _NOT_LINEAR),
    "TCDScheduler": _DiffusersClass("tcd", {"prediction_type": "epsilon", "timestep_spacing": "leading", "eta": 0.3}, _NOT_LINEAR),
    "FlowMatchHeunDiscreteScheduler": _DiffusersClass("flow_heun", {"prediction_type": "flow_prediction"}, ()),
    "FlowMatchEulerDiscreteScheduler": _DiffusersClass("flow_match_euler", {"prediction_type": "flow_prediction"}, ("invert_sigmas",)),
}

SUPPORTED = tuple(_DIFFUSERS)
"""Classes of diffusers that can be compiled."""


def class_kind(class_name: str) -> tuple[str, dict[str, object]] | None:
    """The scheduler of a class of diffusers, with the class's settings that are not the model's; None for another name."""
    for known, entry in _DIFFUSERS.items():
        if class_name.casefold() in (known.casefold(), known.removesuffix("Scheduler").casefold()):
            own = ("solver_type", "lower_order_final", "eta")
            settings = {key: value for key, value in entry.defaults.items() if key in own}
            return entry.name, settings | ({"timestep_spacing": "linspace"} if "timestep_spacing" in entry.ignored else {})
    return None
