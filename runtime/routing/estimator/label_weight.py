"""Weights of labels: the noisier a label, the less it counts."""

from __future__ import annotations

import numpy as np

from costroute_rt.routing.array import FloatArray

_LEAST_BETWEEN = 0.05
"""Smallest share of the labels' spread that is attributed to differences between prompts, however noisy the labels claim to be."""


def label_weights(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights of labels, and the labels with 0 where they are missing; both float64[prompts, candidates].

    A weight is proportional to 1 / (variance + variance between prompts), 0 where the label is missing, and 1 on average over each
    candidate's labels. The variance between prompts is the labels' spread minus their mean variance.
    """
    known = ~np.isnan(mean)
    labels = np.where(known, mean, 0.0)
    count = np.maximum(known.sum(0), 1)
    noise = np.where(known & ~np.isnan(variance), variance, 0.0)
    center = labels.sum(0) / count
    spread = np.where(known, (labels - center) ** 2, 0.0).sum(0) / count
    between = np.maximum(spread - noise.sum(0) / count, _LEAST_BETWEEN * spread)
    uncertainty = noise + between
    certain = (uncertainty <= 0).any(0)  # equal labels without noise: they all get the same weight
    weights = np.where(known, 1 / np.where(certain, 1.0, uncertainty), 0.0)
    return weights / np.maximum(weights.sum(0) / count, 1e-300), labels


def ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """above / below, 0 where below is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
