"""Intervals of deferral curves, and of their heights above that of averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Curve, Routed
from costroute_rt.export.router.rounding import plain
from costroute_rt.routing.array import FloatArray, IntArray

GRID = 41
"""Evenly spaced mean costs at which intervals are computed."""
MOST_BETWEEN, _PER_GAP = 80, 4
"""Further ones, between the costs of neighbouring candidates."""
Weighted = Callable[[FloatArray], Curve]
"""A curve by the weight of each prompt, float64[prompts]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A curve's quality at some mean costs, with its 95 % interval there."""

    cost: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray

    def to_json(self) -> dict[str, list[float]]:
        """Plain data."""
        return {"cost_ms": plain(self.cost), "value": plain(self.value), "low": plain(self.low), "high": plain(self.high)}


def interval_band(routed: Routed, cells: Cells, *, resamples: int = curve.RESAMPLES, seed: int = 0) -> Band:
    """The interval of one router's curve over prompts.

    cells: labels of every candidate, with costs; `routed` chose for their prompts.
    """
    return interval_bands({"": by_weight(routed, cells)}, cost_grid(cells.cost_ms), cells.groups, resamples=resamples, seed=seed)[0][""]


def cost_grid(cost: FloatArray) -> FloatArray:
    """float64[GRID + MOST_BETWEEN or fewer], rising: mean costs from the cheapest candidate's to the most expensive one's.

    Denser where candidates are close to each other in cost. cost: float64[candidates].
    """
    known = np.unique(cost)
    count = min(_PER_GAP * (len(known) - 1), MOST_BETWEEN)
    between = np.interp(np.linspace(0, len(known) - 1, count + 1), np.arange(len(known)), known)
    return np.unique(np.concatenate([np.linspace(known[0], known[-1], GRID), between]))


def by_weight(routed: Routed, cells: Cells) -> Weighted:
    """A router's curve."""
    scored, paid = cells.mean[np.arange(len(cells)), routed.choice], cells.cost_ms[routed.choice]
    return lambda weight: Curve(cost=paid @ weight / weight.sum(), quality=scored @ weight / weight.sum())


def hull_by_weight(cells: Cells) -> Weighted:
    """Random mixing of the single candidates that are best by the same weights."""
    return lambda weight: curve.hull(cells.cost_ms, weight @ cells.mean / weight.sum())


def mean_by_weight(routed: Sequence[Routed], truths: Sequence[FloatArray], cost: FloatArray) -> Weighted:
    """The mean of several choices for the same prompts, each scored by its own labels, float64[prompts, candidates]."""
    paid = np.mean([cost[each.choice] for each in routed], axis=0)
    scored = np.mean([truth[np.arange(len(truth)), each.choice] for each, truth in zip(routed, truths, strict=True)], axis=0)
    return lambda weight: Curve(cost=paid @ weight / weight.sum(), quality=scored @ weight / weight.sum())


def interval_bands(
    curves: Mapping[str, Weighted],
    grid: FloatArray,
    groups: IntArray,
    *,
    base: Weighted | None = None,
    resamples: int = curve.RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, Band], dict[str, Band]]:
    """Each curve's band over prompts, and that of its height above `base` on the same prompts; the latter empty without a base.

    By the percentile bootstrap (Efron 1979); prompts of a group are drawn together. grid: float64[costs]. groups: int64[prompts].
    """

    def measure(weight: FloatArray) -> dict[str, float]:
        heights = {(name, False): make(weight).at(grid) for name, make in curves.items()}
        if base is not None:
            level = base(weight).at(grid)
            heights |= {(name, True): height - level for (name, _), height in heights.items()}
        return {f"{is_above} {place} {name}": v for (name, is_above), each in heights.items() for place, v in enumerate(each.tolist())}

    found = curve.bootstrap(measure, groups, resamples=resamples, seed=seed)

    def band(name: str, is_above: bool) -> Band:
        each = [found[f"{is_above} {place} {name}"] for place in range(len(grid))]
        value, low, high = (np.array([getattr(one, end) for one in each]) for end in ("value", "low", "high"))
        return Band(cost=grid, value=value, low=low, high=high)

    return {name: band(name, False) for name in curves}, {} if base is None else {name: band(name, True) for name in curves}


def sure_ranges(band: Band) -> list[list[float]]:
    """Ranges of mean cost, of two neighbouring ones or more, over which the whole interval is above 0 at each."""
    found: list[list[float]] = []
    was_sure = False
    for cost, low in zip(plain(band.cost), band.low.tolist(), strict=True):
        if low > 0 and was_sure:
            found[-1][1] = cost
        elif low > 0:
            found.append([cost, cost])
        was_sure = low > 0
    return [[start, end] for start, end in found if end > start]
