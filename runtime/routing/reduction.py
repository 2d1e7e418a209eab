"""Fewer features per prompt: the directions in which labelled prompts differ most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from costroute_rt.routing.array import AnyArray, Float32Array

_SMALLEST = 1e-9
"""Directions with a smaller share of the leading variance are rounding noise."""
_DENSE_ROWS = 8
"""Up to this many prompts at a time, only non-zero features are multiplied: hashed n-grams are nearly all zeros."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """Principal components: (features - center) @ components, scaled so that the fitted prompts' mean length is 1."""

    center: Float32Array
    """float32[features]"""
    components: Float32Array
    """float32[features, kept], including the scale."""
    _offset: Float32Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.center.ndim != 1 or self.components.ndim != 2 or len(self.center) != len(self.components) or not self.components.size:
            raise ValueError(f"a center of {self.center.shape} and components of {self.components.shape} do not fit")
        if not (np.isfinite(self.center).all() and np.isfinite(self.components).all()):
            raise ValueError("a reduction with numbers that are not finite")
        object.__setattr__(self, "_offset", self.center @ self.components)

    @classmethod
    def fit(cls, features: Float32Array, d: int = 128) -> Reduction:
        """The d leading components of float32[prompts, features]; fewer if they vary in fewer directions."""
        center = features.mean(0, dtype=np.float64).astype(np.float32)
        centered = features - center
        is_wide = features.shape[0] < features.shape[1]
        gram = (centered @ centered.T if is_wide else centered.T @ centered).astype(np.float64)
        variances, directions = np.linalg.eigh(gram)
        order = np.argsort(variances)[::-1][: max(1, d)]
        kept = order[variances[order] > max(_SMALLEST * variances[order[0]], 1e-12)]
        if not len(kept):  # every prompt is the same
            return cls(center, np.zeros((features.shape[1], 1), dtype=np.float32))
        components = directions[:, kept]
        if is_wide:
            components = (centered.T @ components.astype(np.float32)) / np.sqrt(variances[kept])
        mean_length = float(np.linalg.norm(centered @ components.astype(np.float32), axis=1).mean())
        return cls(center, (components / mean_length).astype(np.float32))

    @property
    def width(self) -> int:
        """Number of features kept per prompt."""
        return int(self.components.shape[1])

    def apply(self, features: Float32Array) -> Float32Array:
        """float32[prompts, kept] of float32[prompts, features]."""
        if len(features) > _DENSE_ROWS:
            return np.asarray(features @ self.components - self._offset, dtype=np.float32)
        reduced = np.empty((len(features), self.width), dtype=np.float32)
        for out, row in zip(reduced, features, strict=True):
            places = (row != 0).nonzero()[0]
            if 4 * len(places) < len(row):
                out[:] = row[places] @ self.components.take(places, axis=0) - self._offset
            else:
                out[:] = row @ self.components - self._offset
        return reduced

    def arrays(self) -> dict[str, Float32Array]:
        """The arrays to save, by name."""
        return {"center": self.center, "components": self.components}

    @classmethod
    def from_saved(cls, arrays: Mapping[str, AnyArray]) -> Reduction:
        """The reduction whose `arrays` these are; raises KeyError or ValueError."""
        return cls(arrays["center"].astype(np.float32), arrays["components"].astype(np.float32))
