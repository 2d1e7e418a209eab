"""Whether a router's estimates and intervals come true."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Interval, bootstrap
from costroute_rt.export.router.estimates import Estimates
from costroute_rt.export.router.rounding import rounded
from costroute_rt.export.router.shrinkage import centre
from costroute_rt.judgement import LEAST_TRUST, LEVELS
from costroute_rt.routing.array import IntArray

BINS = 10
RESAMPLES = 500
BoolArray = npt.NDArray[np.bool_]


def calibrate(cells: Cells, estimates: Estimates, *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Predicted and actual quality in bins of equally many cells, the slope between them, bias and error."""
    known = cells.count > 0
    predicted, found = estimates.mean[known], cells.mean[known]
    noise = cells.variance[known] if cells.has_noise else np.zeros(found.shape)
    order = np.array_split(np.argsort(predicted, kind="stable"), min(BINS, len(predicted)))
    spread_of_all = float(predicted.var(ddof=1)) if len(predicted) > 1 else 0.0
    slope = float(np.cov(predicted, found)[0, 1] / spread_of_all) if spread_of_all > 0 else None
    own = _own_slope(cells, estimates)
    return {
        "bins": [
            {"predicted": rounded(predicted[rows].mean()), "found": rounded(found[rows].mean()), "cells": len(rows)} for rows in order
        ],
        "coverage": coverage(cells, estimates, resamples=resamples),
        "slope": rounded(slope),
        "slope_by_prompt": rounded(own),
        "bias": rounded(float((predicted - found).mean())),
        "rms_error": rounded(float(np.sqrt(((predicted - found) ** 2).mean()))),
        "label_noise": rounded(float(np.sqrt(noise.mean()))) if cells.has_noise else None,
    }


def coverage(cells: Cells, estimates: Estimates, *, resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """For each of LEVELS the share of the labels inside their intervals, with its own 95 % interval, and their mean half-width.

    For all prompts, for those near the labelled ones (trust of LEAST_TRUST or more), and for those far from them; with the number of labels
    of each kind. Shares are null where there is no label. Empty if the router has no intervals.
    """
    if estimates.label_widths is None:
        return []
    known, distant = cells.count > 0, (estimates.trust < LEAST_TRUST)[:, None]
    parts = {"": known, "_near": known & ~distant, "_far": known & distant}
    miss = np.abs(np.where(known, cells.mean - estimates.mean, np.inf))
    rows = []
    for level, width in zip(LEVELS, estimates.label_widths, strict=True):
        row: dict[str, Any] = {"level": level, "half_width": rounded(width[known].mean())}
        for part, mask in parts.items():
            found = _share(miss <= width, mask, cells.groups, resamples) if mask.any() else None
            row[f"covered{part}"] = None if found is None else rounded(found.value)
            row[f"covered{part}_interval"] = None if found is None else [rounded(found.low), rounded(found.high)]
        rows.append({**row, "near": int(parts["_near"].sum()), "far": int(parts["_far"].sum())})
    return rows


def _share(inside: BoolArray, among: BoolArray, groups: IntArray, resamples: int) -> Interval:
    """The share of some cells, with its interval over the prompts that have any."""
    rows = among.any(1)
    hits, cells = (inside & among)[rows].sum(1), among[rows].sum(1)
    return bootstrap(lambda weight: {"": float(weight @ hits / (weight @ cells))}, groups[rows], resamples=resamples)[""]


def _own_slope(cells: Cells, estimates: Estimates) -> float | None:
    """Slope of the labels' differences between a prompt's candidates on the estimated ones; None if no estimate depends on the prompt."""
    known = (cells.count > 0).astype(np.float64)
    arrays = [np.where(known > 0, array, 0.0) for array in (estimates.mean, cells.mean)]
    means = [array.sum(0) / np.maximum(known.sum(0), 1) for array in arrays]
    effect, found = (centre(known * (array - mean), known) * known for array, mean in zip(arrays, means, strict=True))
    size = float((effect**2).sum())
    return float((effect * found).sum()) / size if size > 1e-12 else None
