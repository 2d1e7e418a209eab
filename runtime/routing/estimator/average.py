"""The estimator that ignores the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray, check_finite
from costroute_rt.routing.estimator.label_weight import label_weights, ratio
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.router_network import Network


@dataclass(frozen=True, slots=True)
class Average:
    """The labels' weighted mean, the same for every prompt."""

    mean: FloatArray
    """float64[candidates]"""
    standard_error: FloatArray
    spread: FloatArray
    """float64[candidates]: standard deviation of the labels."""

    kind: ClassVar[str] = "average"
    needs_states: ClassVar[bool] = False
    networks: ClassVar[tuple[Network, ...]] = ()

    def __post_init__(self) -> None:
        check_finite(self.arrays(), mean=1, standard_error=1, spread=1)
        if not len(self.mean) or not self.mean.shape == self.standard_error.shape == self.spread.shape:
            raise ValueError("an average without candidates, or with arrays of different length")
        if (self.standard_error < 0).any() or (self.spread < 0).any():
            raise ValueError("an average with a standard error below 0")

    @property
    def candidates(self) -> int:
        return len(self.mean)

    @classmethod
    def fit(cls, mean: FloatArray, variance: FloatArray) -> Average:
        """mean, variance: float64[prompts, candidates], NaN where missing; a candidate without labels gets the average of all."""
        weights, labels = label_weights(mean, variance)
        total = weights.sum(0)
        known = total > 0
        average = ratio((weights * labels).sum(0), total)
        spread = np.sqrt(ratio((weights * (labels - average) ** 2).sum(0), total))
        error = spread * np.sqrt(ratio((weights**2).sum(0), total**2))
        if not known.all():
            overall = np.array([average[known].mean(), average[known].std() + spread[known].max()]) if known.any() else np.zeros(2)
            average[~known], spread[~known], error[~known] = overall[0], overall[1], overall[1]
        return cls(average, error, spread)

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> tuple[FloatArray, FloatArray]:
        """The averages, once per prompt."""
        shape = len(features), len(self.mean)
        return np.broadcast_to(self.mean, shape).copy(), np.broadcast_to(self.standard_error, shape).copy()

    def predict(self, features: Float32Array, states: TextStates | None = None) -> FloatArray:
        return self.estimate(features)[0]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def arrays(self) -> dict[str, AnyArray]:
        return {"mean": self.mean, "standard_error": self.standard_error, "spread": self.spread}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Average:
        return cls(*(arrays[name].astype(np.float64) for name in ("mean", "standard_error", "spread")))
