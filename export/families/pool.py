"""The candidates that a bundle starts with: of the model's kind, or with the steps and schedulers that the user names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costroute_rt.engines.bundle.manifest import PRIOR
from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint.source.network import Source
from costroute_rt.export.families.detect import Detected, takes_guidance
from costroute_rt.export.families.kind import BASE, DMD2, EMBEDDED_GUIDANCE, HYPER, HYPER_FEW, LIGHTNING
from costroute_rt.export.families.prior import STANDARD_ERROR, expected_quality
from costroute_rt.export.families.scheduler_name import find_scheduler
from costroute_rt.export.families.spec import FamilySpec
from costroute_rt.sampling.diffusers_config import from_diffusers
from costroute_rt.sampling.replacement import choose_scheduler
from costroute_rt.sampling.scheduler import build_table

DEFAULT = "default"
"""Name of the scheduler of the kind."""
_TRAINING = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""How Stable Diffusion 1, 2 and XL were trained, for schedulers that do not say it."""
_TRAINED = (*_TRAINING, "prediction_type", "trained_betas")
_ONE_STEP_TIMESTEP = 399
_RESCALE = 0.7
"""Of guidance, for models with zero terminal SNR (Lin et al., arXiv 2305.08891, section 3.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """The sections `schedulers`, `pool` and `quality` of a manifest, and what was assumed."""

    schedulers: Mapping[str, Mapping[str, Any]]
    rows: tuple[Mapping[str, Any], ...]
    quality: Mapping[str, Any]
    guidance: str
    """Kind of guidance of the denoiser, as in a manifest."""
    has_memory: bool
    """Whether the step graphs carry one more latent, so that every scheduler can be named at run time."""
    rescales: bool
    """Whether candidates rescale guided outputs."""
    notes: tuple[str, ...]


def plan_pool(
    source: Source,
    family: FamilySpec,
    found: Detected,
    *,
    denoiser: str,
    decoders: Sequence[str],
    steps: Sequence[int] = (),
    schedulers: Sequence[str] = (),
    guidance_ends: Sequence[float] = (),
    guidance_rescale: float | None = None,
) -> PoolPlan:
    """The candidates of a model.

    decoders: component names, the best first. steps: instead of those of the kind.
    schedulers: names of those to use instead of the one of the kind; see `scheduler_name`.
    guidance_ends: shares of the steps after which guidance ends, for a candidate with each of them. guidance_rescale: instead of the usual.
    Raises BundleError for a training schedule that cannot be used, ConfigError for what the user chose and the model cannot use.
    """
    chosen, replaced = _compile(source, found, schedulers)
    counts = tuple(sorted(set(steps) or _usual_steps(family, found)))
    guidance, scale = _guidance(source, family, found)
    if guidance != "classifier_free" and (guidance_ends or guidance_rescale):
        name = "guidance_ends" if guidance_ends else "guidance_rescale"
        raise ConfigError(name, guidance_ends or guidance_rescale, f"none: {found.kind.title} models run without guidance")
    ends = sorted(set(guidance_ends or (1.0,)))
    usual = _RESCALE if has_zero_snr(source) and guidance == "classifier_free" else 0.0
    share = usual if guidance_rescale is None else guidance_rescale
    rescale = {"guidance_rescale": share} if share else {}
    rows = [
        {
            "name": _name(source.name, count, _middle(name if len(chosen) > 1 else "", end), decoder, decoders),
            "denoiser": denoiser,
            "scheduler": name,
            "num_inference_steps": count,
            "guidance_scale": scale,
            **({"guidance_end": end} if end < 1 else {}),
            "decoder": decoder,
            **rescale,
        }
        for name in chosen
        for count in counts
        for end in ends
        for decoder in reversed(decoders)
    ]
    for config in chosen.values():
        for count in counts:
            build_table(from_diffusers(config), count)  # raises ConfigError for a number of steps that it cannot take
    return PoolPlan(
        schedulers=chosen,
        rows=tuple(rows),
        quality=_prior(rows, family, found, decoders[0]),
        guidance=guidance,
        has_memory=True,
        rescales=bool(rescale),
        notes=(f"kind: {found.kind.title} ({found.reason})", *(f"scheduler: {each}" for each in replaced)),
    )


def _compile(source: Source, found: Detected, names: Sequence[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Settings of schedulers by their names in the manifest, and what replaces what, in words."""
    try:
        own, instead = choose_scheduler({**_training(source, found), **_own_settings(source, found)})
    except ConfigError as error:
        remedy = "correct its scheduler_config.json"
        raise BundleError(source.path, f"its noise schedule cannot be used: {error}", remedy) from error
    if not names:
        return {DEFAULT: own}, [instead] if instead is not None else []
    chosen = {slug(name.removesuffix("Scheduler")): find_scheduler(name, own) for name in names}
    return {name: settings for name, (settings, _) in chosen.items()}, [note for _, note in chosen.values() if note is not None]


def slug(name: str) -> str:
    """A model's name as a part of candidates' names: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:48] or "model"


def _prior(rows: Iterable[Mapping[str, Any]], family: FamilySpec, found: Detected, best_decoder: str) -> dict[str, Any]:
    means = {
        row["name"]: expected_quality(
            family.best_quality,
            row["num_inference_steps"],
            is_distilled=found.kind is not BASE,
            has_tiny_decoder=row["decoder"] != best_decoder,
            guidance_end=row.get("guidance_end", 1.0),
        )
        for row in rows
    }
    return {"metric": PRIOR, "candidates": {name: {"mean": mean, "standard_error": STANDARD_ERROR} for name, mean in means.items()}}


def _name(model: str, steps: int, middle: str, decoder: str, decoders: Sequence[str]) -> str:
    """`sd15@8`, `sd15-ddim@8` if there are several schedulers, `sd15@8-tiny` with another decoder than the best."""
    return f"{slug(model)}{middle}@{steps}{'' if decoder == decoders[0] else f'-{decoder}'}"


def _middle(scheduler: str, guidance_end: float) -> str:
    """What tells candidates with the same number of steps apart: the scheduler, and the percentage of steps that are guided."""
    name = f"-{scheduler}" if scheduler else ""
    return name if guidance_end == 1 else f"{name}-g{100 * guidance_end:g}"


def _guidance(source: Source, family: FamilySpec, found: Detected) -> tuple[str, float]:
    """The kind of guidance, and its scale."""
    if takes_guidance(source):
        return "embedded", EMBEDDED_GUIDANCE
    return ("classifier_free", family.guidance_scale) if found.kind.is_guided else ("none", 1.0)


def _usual_steps(family: FamilySpec, found: Detected) -> tuple[int, ...]:
    kind, named = found.kind, found.named_steps
    if kind.keeps_named_steps and named is not None and not (kind is HYPER and named == 1):
        return (named,)
    return kind.num_inference_steps or family.num_inference_steps


def _training(source: Source, found: Detected) -> dict[str, Any]:
    """The schedule that the model was trained with; that of the steps below 400 for DMD2's weights for one step, which begin there."""
    known = {key: source.scheduler[key] for key in _TRAINED if source.scheduler.get(key) is not None}
    training: dict[str, Any] = {**_TRAINING, "prediction_type": "epsilon", **known}
    if (found.kind, found.named_steps) == (LIGHTNING, 1):
        training["prediction_type"] = "sample"
    if (found.kind, found.named_steps) == (DMD2, 1) and training["beta_schedule"] == "scaled_linear":
        first, last = (math.sqrt(training[key]) for key in ("beta_start", "beta_end"))
        share = _ONE_STEP_TIMESTEP / (training["num_train_timesteps"] - 1)
        training |= {"num_train_timesteps": _ONE_STEP_TIMESTEP + 1, "beta_end": (first + (last - first) * share) ** 2}
    return training


def has_zero_snr(source: Source) -> bool:
    """Whether the model was trained with zero terminal SNR: to begin at pure noise."""
    return bool(source.scheduler.get("rescale_betas_zero_snr"))


def _own_settings(source: Source, found: Detected) -> dict[str, Any]:
    """The scheduler of the kind; for a model with zero terminal SNR, Euler's, which starts at the last timestep."""
    if found.kind is BASE and has_zero_snr(source):
        return {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    if found.kind is HYPER and found.named_steps not in (None, 1):
        return dict(HYPER_FEW)
    settings = dict(found.kind.scheduler)
    if (found.kind, found.named_steps) == (DMD2, 1):
        settings["original_inference_steps"] = 1
    return settings
