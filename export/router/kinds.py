"""Kinds of prompts: the table's categories, or clusters of the prompts' tags where it has none."""

from __future__ import annotations

import numpy as np

from costroute_rt.export.router.cells import Cells
from costroute_rt.routing.array import Float32Array, IntArray
from costroute_rt.routing.prompt_tag import tag_prompts

LEAST_KINDS, MOST_KINDS = 4, 24
"""With fewer kinds the error between kinds is unknown; of more categories, several are left out together."""
CLUSTERS = 8
_LEAST_OUTSIDE = 20
"""Prompts that must be left when the largest kind is left out."""
_LEAST_SPREAD, _ROUNDS = 0.2, 50


def find_kinds(cells: Cells, seed: int = 0) -> IntArray | None:
    """int64[prompts]: the kind of each prompt, by category, else by cluster; None where neither gives LEAST_KINDS kinds."""
    named = find_categories(cells)
    if named is not None and named.max() + 1 >= LEAST_KINDS:
        return named
    found = cluster(tag_prompts(cells.prompts), CLUSTERS, seed)
    return found if found.max() + 1 >= LEAST_KINDS and _leave_enough(found) else None


def find_categories(cells: Cells) -> IntArray | None:
    """int64[prompts]: the number of each prompt's category, below MOST_KINDS; None without two of them."""
    if cells.categories is None or len(set(cells.categories)) < 2:
        return None
    named = np.unique(cells.categories, return_inverse=True)[1].ravel() % MOST_KINDS
    return np.asarray(named, dtype=np.int64) if _leave_enough(named) else None


def _leave_enough(kinds: IntArray) -> bool:
    return len(kinds) - int(np.bincount(kinds).max()) >= _LEAST_OUTSIDE


def cluster(rows: Float32Array, count: int, seed: int = 0) -> IntArray:
    """int64[prompts]: k-means clusters (Lloyd 1982) from centres drawn far apart (k-means++, Arthur and Vassilvitskii 2007).

    rows: float32[prompts, tags], scaled by the spread of each tag here. There are fewer clusters where there are fewer different rows.
    """
    rng = np.random.default_rng(seed)
    scaled = rows.astype(np.float64) / np.sqrt(rows.var(0, dtype=np.float64) + _LEAST_SPREAD**2)
    centres = scaled[rng.integers(len(scaled))][None]
    while len(centres) < count and (nearest := _squared_distances(scaled, centres).min(1)).sum() > 1e-9:
        centres = np.vstack([centres, scaled[rng.choice(len(scaled), p=nearest / nearest.sum())]])
    member = _squared_distances(scaled, centres).argmin(1)
    for _ in range(_ROUNDS):
        centres = np.stack([scaled[member == number].mean(0) for number in np.unique(member)])
        former, member = member, _squared_distances(scaled, centres).argmin(1)
        if np.array_equal(former, member):
            break
    return np.asarray(np.unique(member, return_inverse=True)[1].ravel(), dtype=np.int64)


def _squared_distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """float64[rows, centres], not below 0."""
    return np.maximum((rows**2).sum(1, keepdims=True) - 2 * rows @ centres.T + (centres**2).sum(1), 0)
