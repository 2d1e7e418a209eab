"""How a model is to be run: as it was trained, or distilled to few steps by one of the known methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LCM = {"_class_name": "LCMScheduler", "timestep_spacing": "leading", "timestep_scaling": 10.0, "set_alpha_to_one": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A method of distillation, or none, with the settings that its authors give."""

    name: str
    title: str
    num_inference_steps: tuple[int, ...] = ()
    """Of the default candidates; empty means those of the family."""
    keeps_named_steps: bool = False
    """Whether weights are made for one number of steps, which is in their name."""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """Settings besides the training schedule, which is the model's."""
    is_guided: bool = False
    """Whether it runs with classifier-free guidance; others were distilled with it."""
    side_px: int | None = None
    """Side of its images, for models whose configuration does not say it; None means that of the family."""


BASE = Kind(
    name="base",
    title="not distilled",
    scheduler={"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "linspace", "use_karras_sigmas": True},
    is_guided=True,
)
TURBO = Kind(
    name="turbo",
    title="distilled (Turbo)",
    num_inference_steps=(1, 2, 4),
    scheduler={"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"},
    side_px=512,
)
"""Adversarial diffusion distillation (Sauer et al., arXiv 2311.17042); settings as in the scheduler_config.json of SD-Turbo, SDXL-Turbo."""
LCM = Kind(
    name="lcm",
    title="distilled (latent consistency)",
    num_inference_steps=(4, 8),
    scheduler={**_LCM, "original_inference_steps": 50},
)
"""Latent consistency models and LoRA (Luo et al., arXiv 2310.04378, 2311.05556)."""
LIGHTNING = Kind(
    name="lightning",
    title="distilled (Lightning)",
    num_inference_steps=(4, 8),
    keeps_named_steps=True,
    scheduler={"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
)
"""SDXL-Lightning (Lin et al., arXiv 2402.13929); settings of its model card."""
HYPER = Kind(
    name="hyper",
    title="distilled (Hyper-SD)",
    num_inference_steps=(1, 2, 4, 8),
    keeps_named_steps=True,
    scheduler={"_class_name": "TCDScheduler", "original_inference_steps": 50},
)
"""Hyper-SD (Ren et al., arXiv 2404.13686); its unified weights, called `1step`, take all of these numbers of steps."""
HYPER_FEW = {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": False}
"""The scheduler of its model card for weights that are made for one number of steps above 1."""
DMD2 = Kind(
    name="dmd2",
    title="distilled (DMD2)",
    num_inference_steps=(4,),
    keeps_named_steps=True,
    scheduler={**_LCM, "original_inference_steps": 4},
)
"""DMD2 (Yin et al., arXiv 2405.14867): LCM's rule at the timesteps 999, 749, 499 and 249, which are those of 4 original steps."""

KINDS = {kind.name: kind for kind in (BASE, TURBO, LCM, LIGHTNING, HYPER, DMD2)}

EMBEDDED_GUIDANCE = 8.0
"""The scale for models that take it as an input; that of the model card of LCM_Dreamshaper_v7."""
