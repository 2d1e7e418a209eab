"""Which candidates simple and complex prompts get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Routed
from costroute_rt.export.router.rounding import rounded
from costroute_rt.routing.array import IntArray

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
    choice = routed.choice[middle_setting(routed, cells)]
    return {name: _shares(choice[mask], cells.candidates) for name, mask in _kinds(cells).items()}


def middle_setting(routed: Routed, cells: Cells) -> int:
    """The setting whose mean cost is nearest to that of the mean-cost candidate; the first without costs."""
    points, middle = routed.points(cells.cost_ms, cells.mean), cells.cost_ms[curve.mean_cost_candidate(cells.cost_ms)]
    return int(np.argmin(np.abs(points.cost - middle)))


def describe_complexity(routed: Routed, cells: Cells) -> dict[str, Any]:
    """Plain data: `shares_by_complexity`, with the number, mean words and mean cost of each kind's prompts."""
    setting = middle_setting(routed, cells)
    choice, words = routed.choice[setting], np.array([len(prompt.split()) for prompt in cells.prompts])
    return {
        "by": "category" if cells.categories is not None else "words",
        "cost_ms": rounded(cells.cost_ms[choice].mean()) if cells.has_cost else None,
        "kinds": [
            {
                "name": name,
                "prompts": int(mask.sum()),
                "words": rounded(words[mask].mean()),
                "cost_ms": rounded(cells.cost_ms[choice[mask]].mean()) if cells.has_cost else None,
                "candidates": {each: rounded(share) for each, share in _shares(choice[mask], cells.candidates).items()},
            }
            for name, mask in _kinds(cells).items()
        ],
    }


def _kinds(cells: Cells) -> dict[str, npt.NDArray[np.bool_]]:
    """bool[prompts] for each kind that has any."""
    names, kinds = complexities(cells)
    masks = {name: np.array([kind == name for kind in kinds]) for name in names}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _shares(choice: IntArray, candidates: Sequence[str]) -> dict[str, float]:
    return {candidate: float((choice == index).mean()) for index, candidate in enumerate(candidates)}
