"""The report of a request: what it made, with which settings, and how that differs from what was planned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from costroute_rt.candidate import Candidate
from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.bundle.manifest import GUIDANCE_DEFAULTS
from costroute_rt.family.family import Family
from costroute_rt.family.plan import Plan
from costroute_rt.family.resources import Resources
from costroute_rt.generation.autoencoder import Pixels
from costroute_rt.request import Request
from costroute_rt.result import Result, Timings
from costroute_rt.route import Route
from costroute_rt.sampling.image_run import steps_of


class Made(NamedTuple):
    """One image that was made."""

    plan: Plan
    """What the planned one became."""
    rows: int
    """Denoiser calls that ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was planned for a request, and the images that were made of it."""

    resources: Resources
    request: Request
    seed: int
    route: Route
    family: Family
    plan: Plan
    is_truncated: bool
    """Whether the end of a text was left out."""
    step_key: EngineKey | None
    step_provider: str
    """Of the denoiser's engine when the first image began."""
    made: list[Made] = field(default_factory=list)
    """One per image, added when its latent is finished."""

    def result(self, pixels: Pixels, timings: Timings) -> Result:
        """The result. pixels: uint8[images, height, width, 3]."""
        max_ms, route, planned = self.request.max_ms, self.route, len(self.plan.table)
        outcome = {"predicted_ms": round(route.option.ms, 3), "actual_ms": round(timings.total_ms, 3)}
        return Result(
            pixels=pixels,
            route=route,
            seed=self.seed,
            timings=timings,
            predicted_ms=route.option.cost.total_ms,
            met=None if max_ms is None else timings.total_ms <= max_ms,
            steps=tuple(self._steps(each) for each in self.made),
            skipped=tuple(max(planned - each.rows, 0) for each in self.made),
            added=tuple(max(each.rows - planned, 0) for each in self.made),
            made=tuple(each.plan.candidate for each in self.made),
            truncated=self.is_truncated,
            settings={**self._settings(), **outcome},
            notes=tuple(self._notes()),
        )

    def spared_ms(self, timings: Timings) -> float:
        """How much longer the images would have taken as they were planned."""
        costs, rows_ms, planned = self.resources.costs, timings.denoise_ms, len(self.plan.table)
        row_ms, decode_ms = sum(rows_ms) / len(rows_ms), costs.runs_ms(self.plan.decode)
        return sum((planned - rows) * row_ms + decode_ms - costs.runs_ms(made.decode) for made, rows in self.made)

    def _steps(self, made: Made) -> int:
        """Steps of an image that ran; a step has one or two rows."""
        steps = made.plan.candidate.num_inference_steps
        if (strength := self.request.used_strength) is not None:
            steps = steps_of(steps, strength)
        return math.ceil(made.rows * steps / len(made.plan.table))

    def _notes(self) -> Iterator[str]:
        """What was not done as requested, and other remarks for users."""
        route, plan = self.route, self.plan
        if plan.scheduler_note is not None:
            yield plan.scheduler_note
        if self.request.has_negative_prompt and not route.chosen.is_guided:
            yield f"the negative prompt was not used: {route.chosen.name} has no classifier-free guidance"
        if plan.tiling is not None:
            tile = (f"{length * plan.size[0] // plan.latent_shape[1]}" for length in (plan.tiling.height, plan.tiling.width))
            yield f"decoded in {len(plan.tiling)} tiles of {'x'.join(tile)} pixels, because the image is larger than usual"
        yield from self._changes()
        if self.is_truncated:
            yield "the prompt is longer than the text encoder reads; its end was left out"
        if route.judgement is not None and route.judgement.note and len(route.options) > 1:
            yield route.judgement.note

    def _changes(self) -> Iterator[str]:
        """How images differ from what was planned, besides fewer rows, which are counted in the result."""
        plan, costs = self.plan, self.resources.costs
        for number, (made, rows) in enumerate(self.made, 1):
            where = f"image {number}: " if len(self.made) > 1 else ""
            if made.candidate.decoder != plan.candidate.decoder:
                why = "to keep the deadline" if costs.runs_ms(made.decode) < costs.runs_ms(plan.decode) else "because time was left"
                yield f"{where}decoded by {made.candidate.decoder} instead of {plan.candidate.decoder} {why}"
            if (added := rows - len(plan.table)) > 0:
                yield f"{where}{added} step{'' if added == 1 else 's'} added because time was left"

    def _settings(self) -> dict[str, Any]:
        """What made the first image; None for what was not used."""
        resources, request, family, plan = self.resources, self.request, self.family, self.plan
        made, built = self.made[0], self.step_key
        candidate = made.plan.candidate
        backend = resources.setup["backend"] if built is None else built.backend
        known = {resources.setup["backend"], *([] if resources.upgrade is None else [resources.upgrade.status().backend])}
        is_ignored = request.has_negative_prompt and not candidate.is_guided
        takes_scale = candidate.is_guided or family.bundle.components[candidate.denoiser].guidance == "embedded"
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt if candidate.is_guided else None,
            "ignored": {"negative_prompt": request.negative_prompt} if is_ignored else {},
            "truncated": self.is_truncated,
            "plain_prompt": request.plain_prompt,
            **request.start,
            "seed": self.seed,
            "candidate": candidate.name,
            "denoiser": candidate.denoiser,
            "decoder": candidate.decoder,
            "scheduler": plan.scheduler.title,
            "requested_scheduler": request.scheduler,
            "num_inference_steps": self._steps(made),
            "replanned": max(len(plan.table) - made.rows, 0),
            "added": max(made.rows - len(plan.table), 0),
            "guidance_scale": candidate.guidance_scale if takes_scale else None,
            **_guidance_settings(candidate),
            "height": plan.size[0],
            "width": plan.size[1],
            "family": family.name,
            "revision": family.bundle.revision,
            "backend": backend,
            "provider": self.step_provider,
            "precision": resources.setup["precision"] if built is None else built.precision,
            "fallback": resources.fallback,
            "version": resources.versions.get("costroute-rt", "unknown"),
            "versions": {name: version for name, version in resources.versions.items() if name == backend or name not in known},
            "max_ms": request.max_ms,
            "count": request.count,
        }


def _guidance_settings(candidate: Candidate) -> dict[str, float]:
    """The settings of guidance by row that differ from their defaults."""
    return {name: getattr(candidate, name) for name, usual in GUIDANCE_DEFAULTS.items() if getattr(candidate, name) != usual}
