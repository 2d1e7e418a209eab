"""What leaving out whole kinds of prompts shows: which prompts are unfamiliar, and how much of an estimator's effect is real there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.shrinkage import NO_SLOPE, Slope, calibration_slope
from costroute_rt.routing.array import Float32Array, FloatArray, IntArray
from costroute_rt.routing.familiarity import RANK, Familiarity, fall
from costroute_rt.routing.prompt_tag import tag_prompts

NEAR_SHARE, FAR_SHARE = 0.95, 0.75
"""Near is the distance within which this share of the labelled prompts lie from the others; far, that share of them without their kind."""
_LEAST_NEAR, _LEAST_FALL = 1.0, 1.0
"""Near, and far less near, are at least these distances, about one word of a kind: labelled prompts may be much alike."""
_SAMPLE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """Predictions for prompts whose whole kind was left out of the fit."""

    kinds: IntArray
    """int64[prompts]"""
    estimate: FloatArray
    """float64[prompts, candidates]: not shrunk."""
    average: FloatArray
    """float64[prompts, candidates]: the averages of the other kinds."""


@dataclass(frozen=True, slots=True)
class Unfamiliar:
    """The result."""

    familiarity: Familiarity
    slope: Slope
    """How much of the prompt's effect is real for a prompt of another kind; the error is that between kinds."""
    kinds: int

    def to_json(self) -> dict[str, Any]:
        """Plain data for the router's record."""
        return {**self.slope.to_json(), "kinds": self.kinds}


def measure_unfamiliar(cells: Cells, apart: Apart | None, seed: int = 0) -> Unfamiliar | None:
    """The distances and the slope of prompts far from the others, from predictions without their kind; None without kinds.

    A prompt counts in the slope by how unfamiliar it is when its kind is left out.
    """
    if apart is None:
        return None
    rows = tag_prompts(cells.prompts).astype(np.float16).astype(np.float32)  # rounded as in the file
    distance, names = np.empty(len(rows)), np.unique(apart.kinds)
    for kind in names:
        without = apart.kinds != kind
        distance[~without] = Familiarity(rows[without], 0, 0).distance(rows[~without])
    near = _near(rows, seed)
    far = max(float(np.quantile(distance, FAR_SHARE)), near + _LEAST_FALL)
    share = 1 - fall(distance, near, far)
    slope = calibration_slope(cells, apart.estimate, apart.average, apart.kinds, share) if share.any() else NO_SLOPE
    return Unfamiliar(Familiarity(rows, near, far), slope, len(names))


def _near(rows: Float32Array, seed: int) -> float:
    sampled = np.random.default_rng(seed).permutation(len(rows))[:_SAMPLE]
    others = Familiarity(rows, 0, 0).distance(rows[sampled], RANK + 1)  # the nearest one is the prompt itself
    return max(float(np.quantile(others, NEAR_SHARE)), _LEAST_NEAR)
