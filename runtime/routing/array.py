"""Arrays that routing computes with and saves: their types, and how they are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]


def check_finite(arrays: Mapping[str, AnyArray], **ranks: int) -> None:
    """Raises ValueError unless each array named in `ranks` has that many axes and finite numbers only."""
    for name, rank in ranks.items():
        if arrays[name].ndim != rank or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} of shape {arrays[name].shape}: expected finite numbers of rank {rank}")


def within(arrays: Mapping[str, AnyArray], prefix: str) -> dict[str, AnyArray]:
    """The arrays named `prefix/NAME`, by NAME."""
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}/")}


def row_lengths(rows: Float32Array) -> Float32Array:
    """float32[rows]: Euclidean lengths; like `np.linalg.norm`, but faster for a single row."""
    return np.asarray(np.sqrt(np.add.reduce(rows * rows, axis=1)), dtype=np.float32)
