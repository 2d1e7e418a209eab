"""The estimator that looks at similar labelled prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray, check_finite, within
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.label_weight import label_weights
from costroute_rt.routing.neighbour import Neighbours
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.router_network import Network
from costroute_rt.routing.setting import number, whole_number

_CHUNK = 1024
"""Prompts estimated at a time."""


class Knn:
    """The mean label of the k most similar labelled prompts, weighted by cosine similarity and shrunk to the average."""

    kind: ClassVar[str] = "knn"
    needs_states: ClassVar[bool] = False
    networks: ClassVar[tuple[Network, ...]] = ()

    def __init__(
        self, neighbours: Neighbours, weights: Float32Array, labels: Float32Array, average: Average, *, k: int, pseudo: float
    ) -> None:
        """weights, labels: float32[prompts, candidates]; weight 0 marks a missing label. pseudo: similarity that the average counts for."""
        if k < 1:
            raise ConfigError("k", k, "1 or more")
        if not 0 < pseudo < float("inf"):
            raise ConfigError("pseudo", pseudo, "a finite number above 0")
        features = neighbours.features
        check_finite({"features": features, "weights": weights, "labels": labels}, features=2, weights=2, labels=2)
        if not len(features) or not weights.shape == labels.shape == (len(features), len(average.mean)) or (weights < 0).any():
            raise ValueError(f"{len(features)} prompts with weights {weights.shape} and labels {labels.shape} do not fit")
        self.neighbours, self._weights, self._labels, self._average = neighbours, weights, labels, average
        self._k, self._pseudo = k, pseudo

    @property
    def candidates(self) -> int:
        return self._average.candidates

    @classmethod
    def fit(cls, features: Float32Array, mean: FloatArray, variance: FloatArray, *, k: int = 30, pseudo: float = 5.0) -> Knn:
        """features: float32[prompts, width], kept without a copy; mean, variance: as in `Average.fit`."""
        weights, labels = label_weights(mean, variance)
        average = Average.fit(mean, variance)
        return cls(Neighbours(features), weights.astype(np.float32), labels.astype(np.float32), average, k=k, pseudo=pseudo)

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> tuple[FloatArray, FloatArray]:
        """Mean and error by each prompt's own neighbours; the average where none of them has a label."""
        if len(features) <= _CHUNK:
            return self._estimate(features)
        parts = [self._estimate(features[start : start + _CHUNK]) for start in range(0, len(features), _CHUNK)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _estimate(self, features: Float32Array) -> tuple[FloatArray, FloatArray]:
        places, similarities = self.neighbours.search(features, self._k)
        weights = np.maximum(similarities, 0)[:, :, None] * self._weights[places].astype(np.float64)
        labels, average, pseudo = self._labels[places].astype(np.float64), self._average, self._pseudo
        total = weights.sum(1)
        mean = ((weights * labels).sum(1) + pseudo * average.mean) / (total + pseudo)
        squares = (weights * (labels - mean[:, None]) ** 2).sum(1) + pseudo * average.spread**2
        squared = (weights**2).sum(1)
        effective = np.divide(total**2, squared, out=np.zeros_like(total), where=squared > 0) + pseudo
        return mean, np.sqrt(squares / (total + pseudo) / effective)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "k": self._k, "pseudo": self._pseudo}

    def arrays(self) -> dict[str, AnyArray]:
        average = {f"average/{name}": array for name, array in self._average.arrays().items()}
        return {"features": self.neighbours.features, "weights": self._weights, "labels": self._labels, **average}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Knn:
        features, weights, labels = (np.asarray(arrays[name], dtype=np.float32) for name in ("features", "weights", "labels"))
        average, k, pseudo = Average.from_saved({}, within(arrays, "average")), whole_number(settings["k"]), number(settings["pseudo"])
        return cls(Neighbours(features), weights, labels, average, k=k, pseudo=pseudo)
