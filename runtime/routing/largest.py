"""The largest of many numbers, in less time than it takes to sort or partition all of them."""

from __future__ import annotations

import numpy as np

from costroute_rt.routing.array import Float32Array, IntArray

_GROUPS = 256
"""Numbers of each group are this far apart, so that neighbouring ones, which are often alike, are in different groups."""


def find_largest(values: Float32Array, k: int) -> IntArray:
    """int64[k]: positions of the k largest (all if there are fewer), largest first; of equal ones the first.

    values: float32[count], one or more; NaN counts as the smallest. k: 1 or more.
    """
    found = (~(values < _bound(values, min(k, len(values))))).nonzero()[0]  # not >=, which is false for all if one is NaN
    order = (-values[found]).argsort(kind="stable")
    return np.asarray(found[order[:k]], dtype=np.int64)


def _bound(values: Float32Array, k: int) -> np.float32:
    """A number that k of the values reach, and few others: the k-th largest of the maxima of groups of them."""
    groups = max(_GROUPS, 8 * k)
    rows = len(values) // groups
    maxima = np.maximum.reduce(values[: rows * groups].reshape(rows, groups)) if rows > 1 else values.copy()
    maxima.partition(len(maxima) - k)
    return np.float32(maxima[len(maxima) - k])
