"""Intervals of a deferral curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Curve, Routed
from costroute_rt.routing.array import FloatArray

GRID = 41
"""Mean costs at which intervals are computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """95 % interval of a curve's quality at some mean costs."""

    cost: FloatArray
    low: FloatArray
    high: FloatArray


def interval_band(routed: Routed, cells: Cells, *, resamples: int = curve.RESAMPLES, seed: int = 0) -> Band:
    """The interval of a router's curve over prompts, by the percentile bootstrap (Efron 1979); prompts of a group are drawn together.

    cells: labels of every candidate, with costs; `routed` chose for their prompts.
    """
    cost, grid = cells.cost_ms, np.linspace(cells.cost_ms.min(), cells.cost_ms.max(), GRID)
    scored, paid = cells.mean[np.arange(len(cells)), routed.choice], cost[routed.choice]

    def measure(weight: FloatArray) -> dict[str, float]:
        found = Curve(cost=paid @ weight / weight.sum(), quality=scored @ weight / weight.sum())
        return dict(zip(map(str, range(GRID)), found.at(grid).tolist(), strict=True))

    ends = curve.bootstrap(measure, cells.groups, resamples=resamples, seed=seed)
    each = [ends[str(index)] for index in range(GRID)]
    return Band(cost=grid, low=np.array([found.low for found in each]), high=np.array([found.high for found in each]))
