"""How much of an estimator's prompt effect is real: the calibration slope of honest predictions, shrunk by its own uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.export.router.cells import Cells
from costroute_rt.routing.array import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Slope:
    """Slope of the labels on the predicted prompt effects, with its standard error."""

    value: float
    standard_error: float

    @property
    def factor(self) -> float:
        """min(1, slope), times the positive-part James-Stein factor 1 - se^2 / slope^2; from 0 (no evidence) to 1 (sure)."""
        if not self.value > 0:
            return 0.0
        return float(min(1.0, self.value) * max(0.0, 1 - (self.standard_error / self.value) ** 2))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"slope": round(self.value, 5), "standard_error": round(self.standard_error, 5), "factor": round(self.factor, 5)}


NO_SLOPE = Slope(0.0, 0.0)
"""That of predictions without any effect of the prompt."""


def calibration_slope(
    cells: Cells,
    predicted: FloatArray,
    average: FloatArray,
    clusters: IntArray | None = None,
    share: FloatArray | None = None,
) -> Slope:
    """Slope b of the labels' differences between candidates on the predicted ones (Copas 1983; van Houwelingen and le Cessie 1990).

        d = predicted - average
        b = sum w <dc, yc> / sum w <dc, dc>
        se^2 = K / (K - 1) * sum_k (sum_k w <dc, yc - b dc>)^2 / (sum w <dc, dc>)^2

    dc and yc are d and the labels minus the average, centred over the known cells of each prompt, because routing depends on differences
    between candidates only; so no prompt needs labels of every candidate. Weights w are those of `cell_weights`.

    predicted, average: float64[prompts, candidates], fitted without these prompts. clusters: int64[prompts], K groups of prompts whose
    errors belong together (default: equal texts); with the prompts' kinds, the error is that of a kind left out. share: float64[prompts],
    how much each prompt counts (default: all alike).
    """
    weight = cell_weights(cells) if share is None else cell_weights(cells) * share[:, None]
    effect, found = (centre(np.where(weight > 0, each, 0.0), weight) for each in (predicted - average, cells.mean - average))
    scales = [float(np.abs(each).max()) for each in (effect, found)]
    members = np.unique(cells.groups if clusters is None else clusters, return_inverse=True)[1].ravel()
    count = len(np.unique(members[(weight > 0).any(1)]))
    if scales[0] <= 1e-9 * max(scales[1], float(np.abs(average).max())) or count < 2:
        return NO_SLOPE
    effect, found = effect / scales[0], found / (scales[1] or 1.0)  # so that no square is out of range
    size = float((weight * effect**2).sum())
    slope = float((weight * effect * found).sum()) / size
    wrong = np.bincount(members, (weight * effect * (found - slope * effect)).sum(1))
    error = float(np.sqrt(count / (count - 1) * (wrong**2).sum())) / size
    return Slope(slope * scales[1] / scales[0], error * scales[1] / scales[0])


def cell_weights(cells: Cells) -> FloatArray:
    """float64[prompts, candidates]: 1 / (the cell's noise + the variance that is not noise), 0 where there is no label, 1 on average."""
    known = cells.count > 0
    if not cells.has_noise:
        return known.astype(np.float64)
    noise = np.where(known, cells.variance, 0.0)
    squares = (cells.mean - np.nanmean(np.where(known, cells.mean, np.nan), axis=0))[known] ** 2
    signal = max(float(squares.mean() - noise[known].mean()), float(squares.mean()) / 100)
    if not signal > 0:
        return known.astype(np.float64)
    weight = np.where(known, 1 / (noise + signal), 0.0)
    return np.asarray(weight / weight[known].mean())


def centre(values: FloatArray, weight: FloatArray) -> FloatArray:
    """Values minus each prompt's weighted mean; both float64[prompts, candidates]."""
    total = np.maximum(weight.sum(1, keepdims=True), 1e-300)
    return np.asarray(values - (weight * values).sum(1, keepdims=True) / total)
