"""Schedulers by the names that people know: diffusers' classes, AUTOMATIC1111's samplers and ComfyUI's.

    EulerAncestralDiscreteScheduler    a class of diffusers, with its defaults
    DPM++ 2M Karras, Euler a           AUTOMATIC1111: a sampler, and a schedule type after it
    dpmpp_2m/karras, euler_ancestral   ComfyUI: a sampler, and a scheduler after a slash

Without a schedule, noise levels are spaced by the model's own timestep_spacing; with one, as the name says. The training schedule, the
prediction type, the shift of flow models and the steps of a distillation remain the model's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from costroute_rt.error import ConfigError
from costroute_rt.sampling.diffusers_config import class_kind
from costroute_rt.sampling.replacement import REPLACEMENTS
from costroute_rt.sampling.scheduler_config import KINDS, SchedulerConfig

_ORDER_2 = "UniPC of order 2"
_SDE: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++"}
_SDE_3: dict[str, Any] = _SDE | {"solver_type": "heun", "lower_order_final": False}


class _Sampler(NamedTuple):
    kind: str
    names: tuple[str, ...]
    """As AUTOMATIC1111 and ComfyUI spell it."""
    settings: Mapping[str, Any] = {}
    automatic: str = ""
    """AUTOMATIC1111's schedule for it if the schedule type is Automatic."""
    instead_of: str = ""
    """What it replaces, if it is another solver than its name says."""


_SAMPLERS = (
    _Sampler("euler", ("Euler", "euler")),
    _Sampler("euler_ancestral", ("Euler a", "euler_ancestral")),
    _Sampler("heun", ("Heun", "heun")),
    _Sampler("kdpm2", ("DPM2", "dpm_2"), automatic="karras"),
    _Sampler("kdpm2_ancestral", ("DPM2 a", "dpm_2_ancestral"), automatic="karras"),
    _Sampler("dpmpp_2s_ancestral", ("DPM++ 2S a", "dpmpp_2s_ancestral"), automatic="karras"),
    _Sampler("dpmpp_sde", ("DPM++ SDE", "dpmpp_sde"), automatic="karras"),
    _Sampler("dpmpp_2m", ("DPM++ 2M", "dpmpp_2m"), automatic="karras"),
    _Sampler("dpmpp_2m", ("DPM++ 2M SDE", "dpmpp_2m_sde"), _SDE, "exponential"),
    _Sampler("dpmpp_2m", ("DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun"), _SDE | {"solver_type": "heun"}, "exponential"),
    _Sampler("dpmpp_3m", ("DPM++ 3M",)),
    _Sampler("dpmpp_3m", ("DPM++ 3M SDE", "dpmpp_3m_sde"), _SDE_3, "exponential"),
    _Sampler("dpmpp_2s", ("DPM++ 2S",)),
    _Sampler("unipc", ("UniPC", "uni_pc"), {"solver_type": "bh1"}),
    _Sampler("unipc", ("uni_pc_bh2",), {"solver_type": "bh2"}),
    _Sampler("ddim", ("DDIM", "ddim")),
    _Sampler("ddpm", ("DDPM", "ddpm")),
    _Sampler("lcm", ("LCM", "lcm")),
    _Sampler("tcd", ("TCD", "tcd"), {"eta": 0.3}),
    _Sampler("dpmpp_2m", ("PLMS", "PNDM"), instead_of="PNDM (PLMS)"),
    _Sampler("dpmpp_2m", ("LMS", "lms"), automatic="karras", instead_of="LMS"),
    _Sampler("dpmpp_2m", ("DEIS", "deis"), instead_of="DEIS"),
    _Sampler("dpmpp_2m", ("iPNDM", "ipndm"), instead_of="iPNDM"),
    _Sampler("dpmpp_2m", ("ipndm_v",), instead_of="iPNDM with variable steps"),
    _Sampler("dpmpp_2m", ("SA-Solver", "sa_solver"), _SDE, instead_of="SA-Solver"),
    _Sampler("dpmpp_3s", ("DPM fast", "dpm_fast"), instead_of="DPM fast"),
    _Sampler("dpmpp_2m", ("DPM adaptive", "dpm_adaptive"), instead_of="DPM adaptive, whose number of calls is not known before"),
    _Sampler("euler_ancestral", ("Restart",), automatic="karras", instead_of="Restart"),
)
_SCHEDULES = {
    "karras": "karras",
    "exponential": "exponential",
    "polyexponential": "exponential",
    "beta": "beta",
    "kl optimal": "kl_optimal",
    "simple": "simple",
    "sgm uniform": "sgm_uniform",
    "normal": "linspace",
    "uniform": "linspace",
    "ddim uniform": "leading",
    "align your steps sd15": "align_your_steps_sd15",
    "align your steps sdxl": "align_your_steps_sdxl",
}
"""By AUTOMATIC1111's and ComfyUI's name: a sigma schedule, or a timestep spacing."""
_OWN_STEPS = ("ddim", "ddpm", "lcm", "tcd")
_EVEN = ("linspace", "leading", "simple", "sgm_uniform", "automatic")
"""Schedules that do not contradict evenly spaced timesteps, which these schedulers have anyway."""
_LONGEST_NAME = 60
NAMES = tuple(dict.fromkeys(name for sampler in _SAMPLERS for name in sampler.names))
SCHEDULE_NAMES = ("automatic", *_SCHEDULES)


class NamedScheduler(NamedTuple):
    """A scheduler with the training schedule of a model."""

    config: SchedulerConfig
    note: str | None
    """What it replaces, in a sentence; None if it is what the name says."""


def named_scheduler(name: str, base: SchedulerConfig) -> NamedScheduler:
    """The scheduler of that name for a model whose own scheduler is `base`.

    Raises ConfigError for an unknown name, with the nearest known ones, and for a scheduler that cannot run the model.
    """
    found = class_kind(name)
    if found is not None:
        kind, settings = found
        return NamedScheduler(_build(name, base, kind, settings, ""), None)
    replaced = next(
        (each for each in REPLACEMENTS if name.casefold() in (each.casefold(), each.removesuffix("Scheduler").casefold())), None
    )
    if replaced is not None:
        kind, settings = class_kind(REPLACEMENTS[replaced].class_name) or ("", {})
        config = _build(name, base, kind, {**settings, **REPLACEMENTS[replaced].settings}, "")
        return NamedScheduler(config, f"{config.title} replaces {replaced}, which step tables cannot hold")
    sampler, schedule = _parse(name)
    if schedule == "automatic":
        schedule = sampler.automatic
    if sampler.kind == "ddim" and schedule not in ("", *_EVEN):  # ComfyUI's ddim is Euler's method
        sampler = _SAMPLERS[0]
    if schedule == "beta" and ("/" in name or base.prediction_type == "flow_prediction"):
        schedule = "beta_timesteps"
    config = _build(name, base, sampler.kind, sampler.settings, schedule)
    if sampler.instead_of:
        return NamedScheduler(config, f"{config.title} replaces {sampler.instead_of}, which step tables cannot hold")
    return NamedScheduler(config, f"{_ORDER_2} replaces that of order 3" if sampler.kind == "unipc" else None)


def _build(name: str, base: SchedulerConfig, kind: str, settings: Mapping[str, Any], schedule: str) -> SchedulerConfig:
    """The model's schedule with a solver and its settings; schedule: a value of `_SCHEDULES`, or none."""
    if base.prediction_type == "flow_prediction":
        kind = _flow_kind(name, kind)
    if kind in _OWN_STEPS:
        if schedule not in ("", *_EVEN):
            raise ConfigError("scheduler", name, f"{kind} without a schedule: it has timesteps of its own")
        schedule = "leading" if schedule == "leading" else ""
    own = {field: getattr(base, field) for field in _TRAINED} | {"solver_type": KINDS[kind].solver_types[0], **settings}
    if schedule in ("linspace", "leading"):
        own |= {"timestep_spacing": schedule, "steps_offset": 1 if schedule == "leading" else 0}
    elif schedule:
        own |= {"sigma_schedule": schedule, "timestep_spacing": "linspace"}  # between the highest and the lowest level of all
    if KINDS[kind].solver_orders == (3,):
        own["solver_order"] = 3
    if kind == base.name and not (settings or schedule) and all(getattr(base, field) == usual for field, usual in _UNNAMED.items()):
        return base
    try:
        return SchedulerConfig(name=kind, **own)
    except ConfigError as error:
        raise ConfigError("scheduler", name, f"a scheduler for this model ({error})") from error


_TRAINED = (
    "prediction_type",
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "steps_offset",
    "original_inference_steps",
    "timestep_scaling",
    "shift",
    "use_dynamic_shifting",
    "base_image_seq_len",
    "max_image_seq_len",
    "base_shift",
    "max_shift",
    "time_shift_type",
    "shift_terminal",
)
"""Fields that belong to the model rather than to a solver."""
_UNNAMED = {"sigma_schedule": "timesteps", "algorithm_type": "dpmsolver++"}
"""What is meant where a name does not say otherwise, also for a model whose own scheduler is DPM++ 2M Karras or DPM++ 2M SDE."""


def _flow_kind(name: str, kind: str) -> str:
    """The form of a scheduler for flow models."""
    if kind.startswith("flow_"):
        return kind
    found = "flow_match_euler" if kind == "euler" else f"flow_{kind}"
    if found not in KINDS:
        raise ConfigError("scheduler", name, "Euler, Heun, DPM++ 2M, 2M SDE, 3M or 3M SDE, or UniPC: the model is a flow model")
    return found


def _parse(name: str) -> tuple[_Sampler, str]:
    """The sampler and the schedule of a name; raises ConfigError for an unknown one."""
    words = _normal(name)
    for spelled in sorted(_BY_NAME, key=len, reverse=True):
        if words == spelled:
            return _BY_NAME[spelled], ""
        rest = words.removeprefix(f"{spelled} ")
        if rest != words and rest in SCHEDULE_NAMES:
            return _BY_NAME[spelled], _SCHEDULES.get(rest, rest)
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    raise ConfigError("scheduler", shown, _expected(words))


def _expected(words: str) -> str:
    known = {_normal(each): each for each in NAMES}
    known |= {f"{spelled} {schedule}": f"{each} {schedule}" for spelled, each in tuple(known.items()) for schedule in _SCHEDULES}
    if "align your steps" in words or " ays" in words:
        return "a name that ends in 'align your steps sd15' or 'align your steps sdxl', by the model's architecture"
    nearest = [known[each] for each in get_close_matches(words[:_LONGEST_NAME], known, n=3, cutoff=0.5)]
    hint = f"; the nearest: {', '.join(nearest)}" if nearest else ""
    return f"a name such as 'DPM++ 2M Karras', 'Euler a', dpmpp_2m/karras or EulerDiscreteScheduler{hint}"


def _normal(name: str) -> str:
    """A name in small letters, without marks; the devices of ComfyUI's _gpu samplers do not matter."""
    words = re.sub(r"[\s_/\-]+", " ", name.casefold().replace("++", "pp")).strip()
    return re.sub(r" gpu\b", "", words)


_BY_NAME = {_normal(name): sampler for sampler in _SAMPLERS for name in sampler.names}
_BY_NAME |= {kind.replace("_", " "): _Sampler(kind, ()) for kind in KINDS if kind.replace("_", " ") not in _BY_NAME}
