"""Which candidates simple and complex prompts get."""

from __future__ import annotations

import numpy as np

from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Routed

COMPLEXITIES = ("short", "medium", "long")


def complexities(cells: Cells) -> tuple[tuple[str, ...], list[str]]:
    """Names of the kinds of prompts, and the kind of each: the table's categories, else thirds of the prompts by number of words."""
    if cells.categories is not None:
        return tuple(sorted(set(cells.categories))), list(cells.categories)
    words = np.array([len(prompt.split()) for prompt in cells.prompts])
    limits = np.quantile(words, [1 / 3, 2 / 3])
    return COMPLEXITIES, [COMPLEXITIES[int((number > limits).sum())] for number in words]


def shares_by_complexity(routed: Routed, cells: Cells) -> dict[str, dict[str, float]]:
    """The share of each kind's prompts that each candidate gets, where routing costs as much as the mean-cost candidate."""
    points, middle = routed.points(cells.cost_ms, cells.mean), cells.cost_ms[curve.mean_cost_candidate(cells.cost_ms)]
    choice = routed.choice[int(np.argmin(np.abs(points.cost - middle)))]
    names, kinds = complexities(cells)
    there = {name: np.array([kind == name for kind in kinds]) for name in names}
    return {
        name: {candidate: float((choice[mask] == index).mean()) for index, candidate in enumerate(cells.candidates)}
        for name, mask in there.items()
        if mask.any()
    }
