"""From labels to a router: by the estimator that cross-validation chooses, as far as its prompt effects are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.error import ConfigError, Reason
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import (
    LEAST_PROMPTS,
    CrossValidation,
    Progress,
    can_learn,
    comparable_prompts,
    cross_validate,
)
from costroute_rt.export.router.grid import USUAL, FitOptions
from costroute_rt.export.router.missing import unbiased_labels
from costroute_rt.export.router.residuals import measure_reliability
from costroute_rt.export.router.unfamiliar import Unfamiliar, measure_unfamiliar
from costroute_rt.routing.array import Float32Array, FloatArray
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.evidence import Evidence
from costroute_rt.routing.neighbour import Neighbours
from costroute_rt.routing.prompt_encoder import PromptEncoder, TextStates
from costroute_rt.routing.reduction import Reduction
from costroute_rt.routing.reliability import Reliability
from costroute_rt.routing.router import NEAREST_COUNTED, Router, describe_pool
from costroute_rt.routing.shrinkage import Shrinkage

NEAR_SHARE = 0.95
"""Share of the labelled prompts that counts as near to the others."""
_FARTHEST = 0.98
_SAMPLE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The parts of a router, before it belongs to a bundle."""

    candidates: tuple[str, ...]
    reduction: Reduction
    estimator: Estimator
    average: Average
    features: Float32Array
    """float32[prompts, dimensions]: of the labelled prompts, reduced."""
    near: float
    far: float
    shrinkage: Shrinkage
    reason: str
    """How much it routes on the prompt, and why, for users."""
    unfamiliar: Unfamiliar | None
    """What is known of other kinds of prompts; None if nothing."""
    reliability: Reliability | None
    """How far the estimates are off; None if there were too few labels."""
    validation: CrossValidation | None
    """None if there were too few labels."""

    @property
    def routes_on(self) -> str:
        """`prompt`, or `average` if the prompt does not count."""
        return "prompt" if self.shrinkage else "average"

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> FloatArray:
        """float64[prompts, candidates]: the router's estimates for unreduced features, without regard to distance."""
        own = self.estimator.predict(self.reduction.apply(features), states)
        return np.asarray(self.average.mean + self.shrinkage.near * (own - self.average.mean))


def learn(
    cells: Cells,
    features: Float32Array,
    *,
    states: TextStates | None = None,
    options: FitOptions = USUAL,
    progress: Progress = lambda _: None,
) -> Learned:
    """Cross-validates, fits the chosen estimator to all labels, and shrinks its prompt effects by what is real of them.

    features: float32[prompts, width]; states: of the same prompts, for a transformer. Raises ConfigError for a candidate without labels.
    """
    _check_labelled(cells)
    known = cells.fill()
    reduction = Reduction.fit(features, options.dimensions)
    # Rounded as in the file, so that the measured router is the one that will be loaded.
    reduced = reduction.apply(features).astype(np.float16).astype(np.float32)
    average = Average.fit(known.mean, known.variance)
    validation = cross_validate(cells, features, states=states, options=options, progress=progress) if can_learn(cells) else None
    unfamiliar = None if validation is None else measure_unfamiliar(cells, validation.apart, options.seed)
    shrinkage, reason = decide(cells, validation, unfamiliar)
    near, far = trust_range(reduced)
    return Learned(
        candidates=cells.candidates,
        reduction=reduction,
        estimator=average if validation is None else validation.chosen.fit(reduced, known.mean, known.variance, states, known.groups),
        average=average,
        features=reduced,
        near=near,
        far=far,
        shrinkage=shrinkage,
        reason=reason,
        unfamiliar=unfamiliar,
        reliability=None if validation is None else measure_reliability(cells, *validation.shrunk(shrinkage)),
        validation=validation,
    )


def fit_router(
    cells: Cells,
    encoder: PromptEncoder,
    states: TextStates | None,
    *,
    pool: Sequence[Mapping[str, Any]],
    labels: Mapping[str, Any],
    text_encoder: str | None = None,
    options: FitOptions = USUAL,
    progress: Progress = lambda _: None,
) -> Router:
    """A router for the candidates of `pool`, which must be those of `cells`, in the same order.

    states: of the prompts of `cells`, if the encoder or a transformer reads them. pool: the bundle's. labels: origin of the labels, for
    the record. text_encoder: SHA-256 of the text encoder whose states they are. Raises ConfigError like `learn`.
    """
    names = tuple(row["name"] for row in pool)
    if names != cells.candidates:
        raise ConfigError("candidates of the labels", ", ".join(cells.candidates), f"those of the pool: {', '.join(names)}")
    features = encoder.encode(cells.prompts, states)
    learned = learn(cells, features, states=states, options=options, progress=progress)
    fit = {"folds": options.folds, "seed": options.seed, "dimensions": options.dimensions}
    return Router(
        pool=describe_pool(pool),
        encoder=encoder,
        reduction=learned.reduction,
        estimator=learned.estimator,
        average=learned.average,
        prompts=cells.prompts,
        features=learned.features,
        near=learned.near,
        far=learned.far,
        shrinkage=learned.shrinkage,
        familiarity=None if learned.unfamiliar is None else learned.unfamiliar.familiarity,
        reliability=learned.reliability,
        evidence=gather_evidence(cells, learned) if options.strict else None,
        reason=learned.reason,
        text_encoder=text_encoder if encoder.needs_states or learned.estimator.needs_states else None,
        record={**describe(learned, cells, labels), "fit": fit},
    )


def gather_evidence(cells: Cells, learned: Learned) -> Evidence | None:
    """What a strict router asks: honest estimates beside labels; None if the prompt does not count."""
    if learned.validation is None or not learned.shrinkage:
        return None
    estimate = learned.validation.shrunk(learned.shrinkage)[0]
    return Evidence(estimate.astype(np.float32), unbiased_labels(cells).astype(np.float32))


def decide(cells: Cells, validation: CrossValidation | None, unfamiliar: Unfamiliar | None = None) -> tuple[Shrinkage, str]:
    """How much the prompt counts, and why: by the calibration slope of the cross-validated predictions."""
    if len(cells.candidates) == 1:
        return Shrinkage(0.0), f"there is only one candidate, {cells.candidates[0]}"
    if validation is None:
        labelled = len(np.unique(cells.groups[comparable_prompts(cells)]))
        return Shrinkage(0.0), f"{labelled} prompts are labelled for two candidates or more, but at least {LEAST_PROMPTS} are needed"
    slope, gain = validation.slope, validation.gain
    found = f"{gain.value:+.4f} (95 % interval {gain.low:+.4f} to {gain.high:+.4f})"
    effect = f"differences that {validation.chosen} predicts come true at {slope.value:.2f} ± {slope.standard_error:.2f} of their size"
    counts = f"so the prompt counts at {slope.factor:.0%}" if slope.factor > 0 else "so the prompt does not count"
    far = 0.0 if unfamiliar is None else min(slope.factor, unfamiliar.slope.factor)
    if far > 0:
        counts += f" ({far:.0%} where it is of another kind)"
    return Shrinkage(slope.factor, far), f"{effect}, {counts}; unshrunk, the gain over the best choice that ignores the prompt is {found}"


def trust_range(reduced: Float32Array, seed: int = 0) -> tuple[float, float]:
    """The distances at which trust begins to fall, and at which it is 0.

    Distance is that of `Router.distance`. Near is the distance within which nearly all labelled prompts have their neighbours; far is half
    way from there to 1, which means nothing in common.
    """
    count = len(reduced)
    if count < 2:
        return 0.0, 1.0
    sampled = np.random.default_rng(seed).permutation(count)[:_SAMPLE]
    similarity = Neighbours(reduced).search(reduced[sampled], NEAREST_COUNTED + 1)[1][:, -1]  # the nearest one is the prompt itself
    known = np.minimum(1, np.linalg.norm(reduced[sampled], axis=1))
    near = float(np.clip(np.quantile(1 - similarity * known, NEAR_SHARE), 0, _FARTHEST))
    return near, (1 + near) / 2


def describe(learned: Learned, cells: Cells, labels: Mapping[str, Any]) -> dict[str, Any]:
    """The record in the router's JSON, beside its settings.

    labels: origin of the labels, plain data: file, sha256, score.
    """
    averages = np.nanmean(cells.mean, axis=0)
    return {
        "labels": {
            **labels,
            "prompts": len(cells),
            "labels": int(cells.count.sum()),
            "candidates": {
                name: {"mean": round(float(mean), 5), "prompts": int(prompts), "cost_ms": round(float(cost), 3) if cells.has_cost else None}
                for name, mean, prompts, cost in zip(cells.candidates, averages, (cells.count > 0).sum(0), cells.cost_ms, strict=True)
            },
        },
        "cross_validation": None if learned.validation is None else learned.validation.to_json(),
        "unfamiliar": None if learned.unfamiliar is None else learned.unfamiliar.to_json(),
    }


def _check_labelled(cells: Cells) -> None:
    empty = [name for name, count in zip(cells.candidates, (cells.count > 0).sum(0), strict=True) if not count]
    if empty:
        raise ConfigError("labels", f"none of {', '.join(empty)}", "labels of every candidate", reason=Reason.LABELS)
