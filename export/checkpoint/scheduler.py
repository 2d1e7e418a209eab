"""The scheduler of a checkpoint, or the one that takes its place where step tables cannot hold it (PNDM, LMS ...).

What replaces a scheduler has the same training schedule and prediction type. A scheduler that the recipe names is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

from costroute_rt.error import ConfigError
from costroute_rt.sampling.diffusers_config import SUPPORTED, from_diffusers

_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
    "rescale_betas_zero_snr",
)
_KARRAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_LINEAR: dict[str, Any] = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "prediction_type": "epsilon"}
_SCALED = _LINEAR | {"beta_start": 0.00085, "beta_end": 0.012}
_LEADING, _LINSPACE = {"timestep_spacing": "leading"}, {"timestep_spacing": "linspace"}
_DPM = "DPMSolverMultistepScheduler"


class _Replacement(NamedTuple):
    class_name: str
    defaults: Mapping[str, Any]
    """Defaults of the replaced class, as far as they are kept."""
    kept: tuple[str, ...] = _SCHEDULE
    settings: Mapping[str, Any] = {}
    """Settings of the new scheduler."""


_REPLACEMENTS = {
    "PNDMScheduler": _Replacement(_DPM, _LINEAR | _LEADING),
    "LMSDiscreteScheduler": _Replacement(_DPM, _LINEAR | _LINSPACE, (*_SCHEDULE, *_KARRAS)),
    "DEISMultistepScheduler": _Replacement(_DPM, _LINEAR | _LINSPACE, (*_SCHEDULE, *_KARRAS)),
    "DPMSolverSinglestepScheduler": _Replacement(_DPM, _LINEAR | _LINSPACE, (*_SCHEDULE, *_KARRAS)),
    "DPMSolverSDEScheduler": _Replacement(_DPM, _SCALED | _LINSPACE, (*_SCHEDULE, *_KARRAS), {"algorithm_type": "sde-dpmsolver++"}),
    "SASolverScheduler": _Replacement(_DPM, _LINEAR | _LINSPACE, (*_SCHEDULE, *_KARRAS), {"algorithm_type": "sde-dpmsolver++"}),
    "KDPM2DiscreteScheduler": _Replacement("HeunDiscreteScheduler", _SCALED | _LINSPACE, (*_SCHEDULE, *_KARRAS)),
    "KDPM2AncestralDiscreteScheduler": _Replacement("EulerAncestralDiscreteScheduler", _SCALED | _LINSPACE),
    "DDPMScheduler": _Replacement("EulerAncestralDiscreteScheduler", _LINEAR | _LEADING),
    "TCDScheduler": _Replacement("DDIMScheduler", _SCALED, _SCHEDULE, {"timestep_spacing": "trailing", "clip_sample": False}),
    "FlowMatchHeunDiscreteScheduler": _Replacement("FlowMatchEulerDiscreteScheduler", {}, ("num_train_timesteps", "shift")),
}
_OTHER_SETTINGS: tuple[tuple[str, object, object], ...] = (
    ("solver_order", 3, 2),
    ("algorithm_type", "dpmsolver", "dpmsolver++"),
    ("algorithm_type", "sde-dpmsolver", "sde-dpmsolver++"),
)
"""Settings of supported schedulers that are replaced: name, value, and the supported value nearest to it."""


def read_scheduler(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a checkpoint's file, with the two settings that StableDiffusionPipeline corrects when it loads a scheduler."""
    return plain_config({**config, "steps_offset": 1, "clip_sample": False})


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON; infinities (lambda_min_clipped), which JSON cannot hold, are defaults and left out."""
    without = {"_diffusers_version", "_name_or_path"}
    return {k: v for k, v in config.items() if k not in without and not (isinstance(v, float) and not isfinite(v))}


def choose_scheduler(config: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A scheduler that can be compiled, and what it replaces, in words; None if it is the given one.

    Raises ConfigError for a scheduler, or a setting of one, that nothing replaces.
    """
    name = str(config.get("_class_name"))
    chosen, notes = dict(config), []
    replacement = _REPLACEMENTS.get(name)
    if replacement is not None:
        given = dict(replacement.defaults) | {key: config[key] for key in replacement.kept if config.get(key) is not None}
        chosen = {"_class_name": replacement.class_name, **given, **replacement.settings}
        notes.append(f"{name} -> {replacement.class_name}")
    elif name not in SUPPORTED:
        raise ConfigError("_class_name", config.get("_class_name"), f"one of {', '.join((*SUPPORTED, *_REPLACEMENTS))}")
    for setting, value, instead in _OTHER_SETTINGS:
        if chosen.get(setting) == value:
            chosen[setting] = instead
            notes.append(f"{setting} {value} -> {instead}")
    from_diffusers(chosen)
    return chosen, ", ".join(notes) or None
