"""Replacements of schedulers that step tables cannot hold (PNDM, LMS ...): two or more latents would have to be carried from row to row.

What replaces a scheduler has the same training schedule and prediction type.
"""

from __future__ import annotations

from collections.abc import Mapping
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
_LEADING, _LINSPACE = {"timestep_spacing": "leading"}, {"timestep_spacing": "linspace"}
_DPM = "DPMSolverMultistepScheduler"


class _Replacement(NamedTuple):
    class_name: str
    defaults: Mapping[str, Any]
    """Defaults of the replaced class, as far as they are kept."""
    kept: tuple[str, ...] = _SCHEDULE
    settings: Mapping[str, Any] = {}
    """Settings of the new scheduler."""


REPLACEMENTS = {
    "PNDMScheduler": _Replacement(_DPM, _LINEAR | _LEADING),
    "LMSDiscreteScheduler": _Replacement(_DPM, _LINEAR | _LINSPACE, (*_SCHEDULE, *_KARRAS)),
    "DEISMultistepScheduler": _Replacement(_DPM, _LINEAR | _LINSPACE, (*_SCHEDULE, *_KARRAS)),
    "SASolverScheduler": _Replacement(_DPM, _LINEAR | _LINSPACE, (*_SCHEDULE, *_KARRAS), {"algorithm_type": "sde-dpmsolver++"}),
}
"""What takes the place of diffusers' classes that step tables cannot hold, by class."""
_OTHER_SETTINGS: tuple[tuple[str, str, object, object], ...] = (
    ("DPMSolver", "algorithm_type", "dpmsolver", "dpmsolver++"),
    ("DPMSolver", "algorithm_type", "sde-dpmsolver", "sde-dpmsolver++"),
    ("UniPC", "solver_order", 3, 2),
)
"""Settings of supported schedulers that are replaced: start of the class name, setting, value, and the supported value nearest to it."""


def choose_scheduler(config: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A scheduler that can be compiled, and what it replaces, in words; None if it is the given one.

    Raises ConfigError for a scheduler, or a setting of one, that nothing replaces.
    """
    name = str(config.get("_class_name"))
    chosen, notes = dict(config), []
    replacement = REPLACEMENTS.get(name)
    if replacement is not None:
        given = dict(replacement.defaults) | {key: config[key] for key in replacement.kept if config.get(key) is not None}
        chosen = {"_class_name": replacement.class_name, **given, **replacement.settings}
        notes.append(f"{name} -> {replacement.class_name}")
    elif name not in SUPPORTED:
        raise ConfigError("_class_name", config.get("_class_name"), f"one of {', '.join((*SUPPORTED, *REPLACEMENTS))}")
    for start, setting, value, instead in _OTHER_SETTINGS:
        if name.startswith(start) and chosen.get(setting) == value:
            chosen[setting] = instead
            notes.append(f"{setting} {value} -> {instead}")
    from_diffusers(chosen)
    return chosen, ", ".join(notes) or None
