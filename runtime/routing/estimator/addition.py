"""One candidate that was added to a fitted router: its quality from the estimates of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray, check_finite
from costroute_rt.routing.setting import whole_number

_ARRAYS = ("offset", "weights", "coefficients", "center", "covariance")


@dataclass(frozen=True, slots=True)
class Addition:
    """q_new(x) = offset + weights . (q(x) - center) + coefficients . x, where q(x) are the others' estimates and x the prompt's features.

    The standard error has two parts: the posterior covariance of offset, weights and coefficients (Bishop 2006, eq. 3.59), and the others'
    own errors, taken as fully correlated.
    """

    offset: FloatArray
    """float64[1]: the estimate where the others have their averages and the features are 0."""
    weights: FloatArray
    """float64[others]"""
    coefficients: FloatArray
    """float64[width]"""
    center: FloatArray
    """float64[others]: the others' averages."""
    covariance: FloatArray
    """float64[1 + others + width, same]: of offset, weights and coefficients, in this order."""
    prompts: int
    """Anchor prompts that it was fitted to; 0 if it rests on the candidate's settings alone."""

    def __post_init__(self) -> None:
        check_finite(self.arrays(), offset=1, weights=1, coefficients=1, center=1, covariance=2)
        count, size = len(self.weights), 1 + len(self.weights) + len(self.coefficients)
        if not count or self.center.shape != (count,) or self.offset.shape != (1,) or self.covariance.shape != (size, size):
            raise ValueError(f"an addition of shapes that do not fit: {[each.shape for each in self.arrays().values()]}")
        if self.prompts < 0:
            raise ValueError("an addition with fewer prompts than 0")

    @property
    def others(self) -> int:
        """Number of the others."""
        return len(self.weights)

    def estimate(self, features: Float32Array, mean: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard error, float64[prompts].

        features: float32[prompts, width]. mean, error: float64[prompts, others], the others' estimates.
        """
        design = make_design(mean - self.center, features)
        found = design @ np.concatenate([self.offset, self.weights, self.coefficients])
        variance = ((design @ self.covariance) * design).sum(1) + (error @ np.abs(self.weights)) ** 2
        return found, np.sqrt(np.maximum(variance, 0))

    def to_json(self) -> dict[str, Any]:
        return {"prompts": self.prompts}

    def arrays(self) -> dict[str, AnyArray]:
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Addition:
        return cls(**{name: arrays[name].astype(np.float64) for name in _ARRAYS}, prompts=whole_number(settings["prompts"]))


def make_design(away: FloatArray, features: Float32Array) -> FloatArray:
    """float64[prompts, 1 + others + width]: what offset, weights and coefficients multiply.

    away: float64[prompts, others], the others' quality minus their averages. features: float32[prompts, width].
    """
    return np.concatenate([np.ones((len(away), 1)), away, features.astype(np.float64)], axis=1)
