"""From labels to a router: the estimator that cross-validation chose, kept only where it does no harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.error import ConfigError, Reason
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import (
    DIMENSIONS,
    ESTIMATORS,
    LEAST_PROMPTS,
    CrossValidation,
    Float32Array,
    Progress,
    can_learn,
    complete_prompts,
    cross_validate,
    grid_of,
)
from costroute_rt.export.router.curve import FloatArray
from costroute_rt.routing.estimator import Average, Estimator
from costroute_rt.routing.neighbour import Neighbours
from costroute_rt.routing.prompt_encoder import PromptEncoder, TextStates
from costroute_rt.routing.reduction import Reduction
from costroute_rt.routing.router import Router, describe_pool

NEIGHBOUR = 5
"""A prompt is as far from the labelled ones as from the fifth nearest."""
NEAR_SHARE = 0.95
"""The part of the labelled prompts that counts as near to the others."""
_FARTHEST = 0.98
_SAMPLE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a router is made of, before it belongs to a bundle."""

    candidates: tuple[str, ...]
    reduction: Reduction
    estimator: Estimator
    average: Average
    features: Float32Array
    """float32[prompts, dimensions]: the labelled prompts', reduced."""
    near: float
    far: float
    routes_on: str
    """`prompt` or `average`."""
    reason: str
    """Why, in words for people."""
    validation: CrossValidation | None
    """None where there was too little to learn from."""

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> FloatArray:
        """float64[prompts, candidates] for unreduced features, as the router will use them; distance is not looked at."""
        reduced = self.reduction.apply(features)
        return np.asarray((self.estimator if self.routes_on == "prompt" else self.average).estimate(reduced, states)[0])


def learn(
    cells: Cells,
    features: Float32Array,
    *,
    states: TextStates | None = None,
    estimators: Sequence[str] = ESTIMATORS,
    folds: int = 5,
    seed: int = 0,
    dimensions: int = DIMENSIONS,
    progress: Progress = lambda _: None,
) -> Learned:
    """Cross-validates, fits the choice to everything, and routes by it only where its gain is surely above zero.

    features: float32[prompts, width]; states: of the same prompts, for a transformer. Raises ConfigError for an unknown estimator, or a
    candidate without a single label.
    """
    grid_of(estimators)
    _check(cells, folds)
    known = cells.fill()
    reduction = Reduction.fit(features, dimensions)
    # As a file keeps them, so that what is measured is what will be loaded.
    reduced = reduction.apply(features).astype(np.float16).astype(np.float32)
    average = Average.fit(known.mean, known.variance)
    validation = None
    if can_learn(cells):
        validation = cross_validate(
            cells,
            features,
            states=states,
            estimators=estimators,
            folds=folds,
            seed=seed,
            dimensions=dimensions,
            progress=progress,
        )
    routes_on, reason = decide(cells, validation)
    near, far = trust_range(reduced)
    return Learned(
        candidates=cells.candidates,
        reduction=reduction,
        estimator=average if validation is None else validation.chosen.fit(reduced, known.mean, known.variance, states, known.groups),
        average=average,
        features=reduced,
        near=near,
        far=far,
        routes_on=routes_on,
        reason=reason,
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
    estimators: Sequence[str] = ESTIMATORS,
    folds: int = 5,
    seed: int = 0,
    dimensions: int = DIMENSIONS,
    progress: Progress = lambda _: None,
) -> Router:
    """A router for the candidates of `pool`, which are those of `cells`, in order.

    states: of the prompts of `cells`, where the encoder or a transformer reads them. pool: the bundle's. labels: where the labels came
    from, for the record. text_encoder: SHA-256 of the text encoder whose states they are. Raises ConfigError as `learn` does.
    """
    names = tuple(row["name"] for row in pool)
    if names != cells.candidates:
        raise ConfigError("candidates of the labels", ", ".join(cells.candidates), f"those of the pool: {', '.join(names)}")
    features = encoder.encode(cells.prompts, states)
    learned = learn(cells, features, states=states, estimators=estimators, folds=folds, seed=seed, dimensions=dimensions, progress=progress)
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
        routes_on=learned.routes_on,
        reason=learned.reason,
        text_encoder=text_encoder if encoder.needs_states or learned.estimator.needs_states else None,
        record={**describe(learned, cells, labels), "fit": {"folds": folds, "seed": seed, "dimensions": dimensions}},
    )


def decide(cells: Cells, validation: CrossValidation | None) -> tuple[str, str]:
    """`prompt` or `average`, and why: prompts decide only where the gain's whole interval is above zero."""
    if len(cells.candidates) == 1:
        return "average", f"there is one candidate only, {cells.candidates[0]}: nothing to choose"
    if validation is None:
        labelled = len(np.unique(cells.groups[complete_prompts(cells)]))
        return "average", f"{labelled} prompts are labelled for every candidate, at least {LEAST_PROMPTS} are needed to learn from prompts"
    gain = validation.gain
    found = f"{gain.value:+.4f} (95 % interval {gain.low:+.4f} to {gain.high:+.4f})"
    if gain.low > 0:
        return "prompt", f"{validation.chosen} gains {found} over the best choice that ignores the prompt"
    return "average", f"no sure gain: {validation.chosen} gains {found} over the best choice that ignores the prompt"


def trust_range(reduced: Float32Array, seed: int = 0) -> tuple[float, float]:
    """The distances at which a prompt begins to count as far from the labelled ones, and at which nothing is left of trust.

    Distance: 1 - cosine to the fifth nearest * min(1, length of the asked prompt's features). The length says how much of a prompt the
    reduction knows: words it has never seen leave little. Near is where all but a few of the labelled prompts are to the others; far is
    half way from there to having nothing in common.
    """
    count = len(reduced)
    if count < 2:
        return 0.0, 1.0
    asked = np.random.default_rng(seed).permutation(count)[:_SAMPLE]
    similarity = Neighbours(reduced).search(reduced[asked], NEIGHBOUR + 1)[1][:, -1]  # the nearest is the prompt itself
    known = np.minimum(1, np.linalg.norm(reduced[asked], axis=1))
    near = float(np.clip(np.quantile(1 - similarity * known, NEAR_SHARE), 0, _FARTHEST))
    return near, (1 + near) / 2


def describe(learned: Learned, cells: Cells, labels: Mapping[str, Any]) -> dict[str, Any]:
    """What the router's manifest records beside its settings.

    labels: where the labels came from, plain data: file, sha256, score.
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
    }


def _check(cells: Cells, folds: int) -> None:
    if folds < 2:
        raise ConfigError("folds", folds, "2 or more")
    empty = [name for name, count in zip(cells.candidates, (cells.count > 0).sum(0), strict=True) if not count]
    if empty:
        raise ConfigError("labels", f"none of {', '.join(empty)}", "labels of every candidate", reason=Reason.LABELS)
