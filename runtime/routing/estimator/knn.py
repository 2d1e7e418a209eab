"""The estimator that looks at similar labelled prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

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


class _Weighed(NamedTuple):
    """The labels of some prompts' neighbours, and how much each of them counts."""

    weights: FloatArray
    """float64[prompts, neighbours, candidates]"""
    labels: FloatArray
    total: FloatArray
    """float64[prompts, candidates]: sums of the weights."""
    mean: FloatArray
    """float64[prompts, candidates], shrunk to the average."""


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
        found = [(each.mean, self._error(each)) for each in map(self._weigh, _parts(features))]
        return _join([mean for mean, _ in found]), _join([error for _, error in found])

    def predict(self, features: Float32Array, states: TextStates | None = None) -> FloatArray:
        return _join([self._weigh(part).mean for part in _parts(features)])

    def _weigh(self, features: Float32Array) -> _Weighed:
        places, similarities = self.neighbours.search(features, self._k)
        weights = self._weights.take(places, axis=0).astype(np.float64)
        weights *= np.maximum(similarities, 0)[:, :, None]
        labels = self._labels.take(places, axis=0).astype(np.float64)
        total = np.add.reduce(weights, axis=1)
        mean = (np.add.reduce(weights * labels, axis=1) + self._pseudo * self._average.mean) / (total + self._pseudo)
        return _Weighed(weights, labels, total, mean)

    def _error(self, found: _Weighed) -> FloatArray:
        weights, labels, total, mean = found
        squares = np.add.reduce(weights * (labels - mean[:, None]) ** 2, axis=1) + self._pseudo * self._average.spread**2
        squared = np.add.reduce(weights**2, axis=1)
        effective = np.divide(total**2, squared, out=np.zeros_like(total), where=squared > 0) + self._pseudo
        return np.asarray(np.sqrt(squares / (total + self._pseudo) / effective))

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


def _parts(features: Float32Array) -> list[Float32Array]:
    if len(features) <= _CHUNK:
        return [features]  # itself, so that a repeated search is recognised
    return [features[start : start + _CHUNK] for start in range(0, len(features), _CHUNK)]


def _join(parts: list[FloatArray]) -> FloatArray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
