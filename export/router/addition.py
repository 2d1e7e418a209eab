"""Fitting one more candidate to a router from a few labelled prompts, without touching the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from costroute_rt.export.router.likeness import Prior, prior, variance_between
from costroute_rt.routing.array import Float32Array, FloatArray, IntArray
from costroute_rt.routing.estimator.addition import Addition, make_design
from costroute_rt.routing.estimator.label_weight import label_weights

WEIGHT_SPREADS = (0.0, 0.1, 0.2, 0.4)
"""Standard deviations of the weights around the prior's that are tried."""
COEFFICIENT_SPREADS = (0.0, 0.2, 0.45)
"""Standard deviations of the coefficients that are tried, in residual standard deviations; features have mean length 1."""
_USUAL = (0.1, 0.2)
"""What is used where the others cannot show which are best."""
_WIDER = 4.0
"""Factor on the variance between candidates for a new one: few candidates show it badly, and new ones tend to be unlike the old."""
_LEAST_ROWS = 20
"""Fewer prompts labelled for all other candidates do not show the noise, and fewer held-out labels not the spreads."""
_PRIOR_LABELS = 10
"""Labels that the others' residual variance counts for, beside the new candidate's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the prompts and of the other candidates."""

    features: Float32Array
    """float32[prompts, width], reduced."""
    others: FloatArray
    """float64[prompts, others]: labels; the router's estimate where one is missing."""
    is_label: npt.NDArray[np.bool_]
    """bool[prompts, others]"""
    spread: FloatArray
    """float64[others]: standard deviation of their labels."""
    center: FloatArray
    """float64[others]: their averages."""
    between: FloatArray
    """float64[1 + others, same]: distances between the candidates, the new one first."""


def fit_addition(known: Known, labels: FloatArray, variance: FloatArray) -> Addition:
    """The new candidate by Bayesian linear regression; with no label the prior alone, whose error is wide.

        y_new(x) = a + shares . y(x) + w . (y(x) - center) + b . x + noise

    shares come from the candidates' settings (see `likeness.prior`); a, w and b are normal around 0. The spread of a is that between
    candidates; those of w and b are the pair that predicts the other candidates best, each treated as if it were the new one with labels on
    the same prompts. Labels of the others make w more certain than estimates would; as the model is linear and the noise independent of x,
    the expected quality follows from the others' expected quality by the same weights.

    labels, variance: float64[prompts] of the new candidate, NaN where missing; weighted as in `label_weights`.
    """
    anchors = np.flatnonzero(~np.isnan(labels))
    noise = _noise(known)
    spreads = choose_spreads(known, anchors, noise) if len(anchors) else _USUAL
    weights = label_weights(labels[:, None], variance[:, None])[0][anchors, 0]
    return _posterior(known, anchors, labels[anchors], weights, noise, spreads)


def choose_spreads(known: Known, anchors: IntArray, noise: float) -> tuple[float, float]:
    """The pair of WEIGHT_SPREADS and COEFFICIENT_SPREADS with the least squared error on the other candidates' labels elsewhere."""
    count = known.others.shape[1]
    held_out = np.setdiff1d(np.arange(len(known.features)), anchors)
    if count < 2 or len(held_out) < _LEAST_ROWS:
        return _USUAL
    pairs = list(product(WEIGHT_SPREADS, COEFFICIENT_SPREADS))
    errors = np.zeros(len(pairs))
    features = known.features.astype(np.float64)
    alike = features @ features[anchors].T
    for each in range(count):
        rows, own = known.is_label[held_out, each], known.is_label[anchors, each]
        if rows.any() and own.any():
            columns = alike[:, own]
            errors += _held_out_errors(_without(known, each), known.others[:, each], columns, anchors[own], held_out[rows], noise, pairs)
    return pairs[int(errors.argmin())] if errors.any() else _USUAL


def _held_out_errors(
    known: Known,
    labels: FloatArray,
    alike: FloatArray,
    anchors: IntArray,
    held_out: IntArray,
    noise: float,
    pairs: Sequence[tuple[float, float]],
) -> FloatArray:
    """float64[pairs]: squared errors on held-out labels of a fit to those on anchors, as `_posterior` predicts them, by kernels.

    alike: float64[prompts, anchors], products of features.
    """
    expected = prior(known.between, 0)
    residual, away = labels - known.others @ expected.shares, known.others - known.center
    near, offset_variance = away @ away[anchors].T, _offset_variance(known, expected)
    errors = []
    for of_weights, of_coefficients in pairs:
        kernel = (offset_variance + of_weights**2 * near) / noise + of_coefficients**2 * alike
        solved = np.linalg.solve(kernel[anchors] + np.eye(len(anchors)), residual[anchors])
        errors.append(float(((kernel[held_out] @ solved - residual[held_out]) ** 2).mean()))
    return np.array(errors)


def _without(known: Known, candidate: int) -> Known:
    """The same with one of the others in the place of the new candidate."""
    rest = np.delete(np.arange(known.others.shape[1]), candidate)
    places = np.concatenate([[candidate + 1], rest + 1])
    return Known(
        features=known.features,
        others=known.others[:, rest],
        is_label=known.is_label[:, rest],
        center=known.center[rest],
        spread=known.spread[rest],
        between=known.between[np.ix_(places, places)],
    )


def _noise(known: Known) -> float:
    """Variance of labels around what the prior makes of the other candidates' labels, mean over the candidates; above 0."""
    spread, rows = float((known.spread**2).mean()), known.is_label.all(1)
    if known.others.shape[1] < 2 or rows.sum() < _LEAST_ROWS:
        return max(spread, 1e-12)
    found = []
    for each in range(known.others.shape[1]):
        left = _without(known, each)
        found.append(float((known.others[rows, each] - left.others[rows] @ prior(left.between, 0).shares).var()))
    return max(float(np.mean(found)), 1e-6 * spread, 1e-12)


def _offset_variance(known: Known, expected: Prior) -> float:
    """Variance of the new candidate's average around what the prior expects; of the labels where there is only one other candidate."""
    scale = variance_between(known.between[1:, 1:], known.center)
    return max(_WIDER * scale * expected.error_ratio if scale > 0 else float((known.spread**2).mean()), 1e-12)


def _posterior(
    known: Known,
    anchors: IntArray,
    labels: FloatArray,
    weights: FloatArray,
    noise: float,
    spreads: tuple[float, float],
) -> Addition:
    """weights: float64[anchors], of the labels, 1 on average. spreads: of w and b, see `fit_addition`."""
    count, width, expected = known.others.shape[1], known.features.shape[1], prior(known.between, 0)
    spread = np.concatenate(
        [[np.sqrt(_offset_variance(known, expected))], np.full(count, spreads[0]), np.full(width, spreads[1] * np.sqrt(noise))]
    )
    design = make_design(known.others[anchors] - known.center, known.features[anchors])
    scaled = np.sqrt(weights / noise)[:, None] * design * spread
    residual = np.sqrt(weights / noise) * (labels - known.others[anchors] @ expected.shares)
    inverse = np.linalg.inv(np.eye(len(spread)) + scaled.T @ scaled)
    solution = inverse @ (scaled.T @ residual)
    # The variance that leave-one-out residuals show, beside that of the other candidates.
    left = 1 - ((scaled @ inverse) * scaled).sum(1)
    wrong = (residual - scaled @ solution) ** 2 / np.maximum(left, 1e-12)
    inflation = (_PRIOR_LABELS + float(wrong.sum())) / (_PRIOR_LABELS + len(anchors))
    solution, covariance = spread * solution, inflation * spread[:, None] * inverse * spread
    return Addition(
        offset=np.array([solution[0] + expected.shares @ known.center]),
        weights=expected.shares + solution[1 : 1 + count],
        coefficients=solution[1 + count :],
        center=known.center,
        covariance=covariance,
        prompts=len(anchors),
    )
