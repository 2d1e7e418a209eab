"""The schedulers that people use, each by the name that a request gives, and as diffusers has it: the settings are written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.parity.model import Settings

FloatArray = npt.NDArray[np.float64]
Levels = Callable[[FloatArray, int], FloatArray]
"""The noise levels of a run, from all levels of the training schedule (rising) and a number of steps; the last one is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """A scheduler in both programs."""

    name: str
    """For the request; empty for the model's own."""
    theirs: Settings = field(default_factory=dict)
    """Class and settings of diffusers besides the training schedule; without `timestep_spacing`, that of the model."""
    levels: Levels | None = None
    """Noise levels that are passed to diffusers, for spacings that it does not know."""
    note: str = ""
    """What the row of the table says."""
    only: str = ""
    """Family that it is for; empty for all."""
    eta: float | None = None
    """Argument of diffusers' pipelines."""


def simple(sigmas: FloatArray, steps: int) -> FloatArray:
    """ComfyUI's `simple`: every (number of levels / steps)-th level from the highest."""
    share = len(sigmas) / steps
    return np.array([sigmas[-(1 + int(index * share))] for index in range(steps)] + [0.0])


def sgm_uniform(sigmas: FloatArray, steps: int) -> FloatArray:
    """ComfyUI's `sgm_uniform`: timesteps evenly from the last to the first, without the first."""
    times = np.linspace(len(sigmas) - 1, 0, steps + 1)[:-1]
    return np.append(np.exp(np.interp(times, np.arange(len(sigmas)), np.log(sigmas))), 0.0)


def align_your_steps(*levels: float) -> Levels:
    """NVIDIA's schedule, interpolated in the logarithm as its authors say (Sabour et al., arXiv 2404.14507)."""

    def space(_: FloatArray, steps: int) -> FloatArray:
        known = np.log(np.array(levels)[::-1])
        found = np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(levels)), known)
        return np.append(np.exp(found)[::-1][:-1], 0.0)

    return space


AYS_SD15 = align_your_steps(14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
AYS_SDXL = align_your_steps(14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def _of(class_name: str, **settings: Any) -> Settings:
    return {"_class_name": f"{class_name}Scheduler", **settings}


_LINSPACE: Settings = {"timestep_spacing": "linspace"}
_KARRAS: Settings = _LINSPACE | {"use_karras_sigmas": True}
_EXPONENTIAL: Settings = _LINSPACE | {"use_exponential_sigmas": True}
_BETA: Settings = _LINSPACE | {"use_beta_sigmas": True}
_DPM, _SDE = "DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}
_SDE_3: Settings = _SDE | {"solver_order": 3, "solver_type": "heun", "lower_order_final": False}
_SIGN = "diffusers' third order of this solver has a wrong sign: compared with the corrected formula"
_PATH = "diffusers' Brownian tree (torchsde) is replaced by a path through our noise"

OWN = Scheduler(name="")
COMMON: tuple[Scheduler, ...] = (
    Scheduler(name="Euler", theirs=_of("EulerDiscrete")),
    Scheduler(name="Euler Karras", theirs=_of("EulerDiscrete", **_KARRAS)),
    Scheduler(name="Euler exponential", theirs=_of("EulerDiscrete", **_EXPONENTIAL)),
    Scheduler(name="Euler beta", theirs=_of("EulerDiscrete", **_BETA)),
    Scheduler(name="Euler simple", theirs=_of("EulerDiscrete"), levels=simple, note="levels by ComfyUI's rule"),
    Scheduler(name="Euler SGM uniform", theirs=_of("EulerDiscrete"), levels=sgm_uniform, note="levels by ComfyUI's rule"),
    Scheduler(
        name="Euler align your steps SD15", theirs=_of("EulerDiscrete"), levels=AYS_SD15, note="levels by the authors' rule", only="sd1"
    ),
    Scheduler(
        name="Euler align your steps SDXL", theirs=_of("EulerDiscrete"), levels=AYS_SDXL, note="levels by the authors' rule", only="sdxl"
    ),
    Scheduler(name="Euler a", theirs=_of("EulerAncestralDiscrete")),
    Scheduler(name="Heun", theirs=_of("HeunDiscrete")),
    Scheduler(name="Heun Karras", theirs=_of("HeunDiscrete", **_KARRAS)),
    Scheduler(name="DPM2 Karras", theirs=_of("KDPM2Discrete", **_KARRAS)),
    Scheduler(name="DPM2", theirs=_of("KDPM2Discrete")),
    Scheduler(name="DPM2 a", theirs=_of("KDPM2AncestralDiscrete")),
    Scheduler(name="DPM2 a Karras", theirs=_of("KDPM2AncestralDiscrete", **_KARRAS)),
    Scheduler(name="DPM++ 2M", theirs=_of(_DPM)),
    Scheduler(name="DPM++ 2M Karras", theirs=_of(_DPM, **_KARRAS)),
    Scheduler(name="DPM++ 2M exponential", theirs=_of(_DPM, **_EXPONENTIAL)),
    Scheduler(name="DPM++ 2M SDE", theirs=_of(_DPM, **_SDE)),
    Scheduler(name="DPM++ 2M SDE Karras", theirs=_of(_DPM, **_SDE, **_KARRAS)),
    Scheduler(name="DPM++ 2M SDE Heun exponential", theirs=_of(_DPM, **_SDE, **_EXPONENTIAL, solver_type="heun")),
    Scheduler(name="DPM++ 3M", theirs=_of(_DPM, solver_order=3)),
    Scheduler(name="DPM++ 3M SDE", theirs=_of(_DPM, **_SDE_3), note=_SIGN),
    Scheduler(name="DPM++ 3M SDE exponential", theirs=_of(_DPM, **_SDE_3, **_EXPONENTIAL), note=_SIGN),
    Scheduler(name="DPM++ 2S", theirs=_of("DPMSolverSinglestep", lower_order_final=True)),
    Scheduler(name="DPM++ 2S a", note="diffusers has no such scheduler: k-diffusion's formula around its denoiser"),
    Scheduler(name="DPM++ 2S a Karras", theirs=_KARRAS, note="diffusers has no such scheduler: k-diffusion's formula around its denoiser"),
    Scheduler(name="DPM++ SDE", theirs=_of("DPMSolverSDE"), note=_PATH),
    Scheduler(name="DPM++ SDE Karras", theirs=_of("DPMSolverSDE", **_KARRAS), note=_PATH),
    Scheduler(name="UniPC", theirs=_of("UniPCMultistep", solver_type="bh1"), note="order 2"),
    Scheduler(name="uni_pc_bh2", theirs=_of("UniPCMultistep", solver_type="bh2"), note="order 2"),
    Scheduler(name="UniPC Karras", theirs=_of("UniPCMultistep", solver_type="bh1", **_KARRAS), note="order 2"),
    Scheduler(name="DDIM", theirs=_of("DDIM", clip_sample=False), eta=0.0),
    Scheduler(name="DDPM", theirs=_of("DDPM", clip_sample=False)),
    Scheduler(name="LCM", theirs=_of("LCM", clip_sample=False, original_inference_steps=50)),
    Scheduler(name="TCD", theirs=_of("TCD", original_inference_steps=50), eta=0.3),
    Scheduler(name="PNDM", theirs=_of(_DPM), note="DPM++ 2M takes its place in both"),
    Scheduler(name="LMS Karras", theirs=_of(_DPM, **_KARRAS), note="DPM++ 2M takes its place in both"),
)
"""Of every model that is not tied to one; those that are distilled are run with some of them too."""
FEW_STEPS = ("Euler", "Euler a", "Euler SGM uniform", "DDIM", "LCM", "TCD", "DPM++ SDE", "DPM++ 2M SDE", "UniPC", "Heun")
"""Names of those that people use with distilled models."""
