"""The estimator that is linear in the features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray, check_finite
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.label_weight import label_weights
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.router_network import Network
from costroute_rt.routing.setting import number

_ALIKE = 1 / 3
"""Weights of a prompt's labels that differ from their mean by this share or less count as equal."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Ridge regression with an intercept, in closed form; the error is that of the posterior (Bishop 2006, eq. 3.59)."""

    coefficients: FloatArray
    """float64[width, candidates]"""
    intercept: FloatArray
    """float64[candidates]: the estimate at `center`."""
    center: FloatArray
    """float64[1 or candidates, width]: one where a prompt's labels have about the same weight for every candidate."""
    inverse: FloatArray
    """float64[1 or candidates, width, width]: of the penalised Gram matrix; that of the mean weights where weights differ."""
    noise: FloatArray
    """float64[candidates]: residual variance; where weights differ, in units of the mean weights."""
    least: FloatArray
    """float64[candidates]: variance of the intercept."""
    alpha: float

    kind: ClassVar[str] = "linear"
    needs_states: ClassVar[bool] = False
    networks: ClassVar[tuple[Network, ...]] = ()

    def __post_init__(self) -> None:
        check_finite(self.arrays(), coefficients=2, intercept=1, center=2, inverse=3, noise=1, least=1)
        (width, candidates), (fits, _) = self.coefficients.shape, self.center.shape
        shapes = self.intercept.shape, self.noise.shape, self.least.shape, self.center.shape, self.inverse.shape[1:]
        several = {fits, len(self.inverse)} - {1, candidates}
        if shapes != ((candidates,), (candidates,), (candidates,), (fits, width), (width, width)) or several:
            raise ValueError(f"a linear estimator of shapes that do not fit: {shapes}")
        if not candidates or (self.noise < 0).any() or (self.least < 0).any():
            raise ValueError("a linear estimator without candidates, or with a variance below 0")

    @property
    def candidates(self) -> int:
        return len(self.intercept)

    @classmethod
    def fit(cls, features: Float32Array, mean: FloatArray, variance: FloatArray, *, alpha: float = 10.0) -> Linear:
        """features: float32[prompts, width]; mean, variance: as in `Average.fit`.

        alpha: penalty on squared coefficients, relative to squared errors of mean weight 1; above 0.
        """
        if not 0 < alpha < float("inf"):
            raise ConfigError("alpha", alpha, "a finite number above 0")
        weights, labels = label_weights(mean, variance)
        average = Average.fit(mean, variance)
        x = features.astype(np.float64)
        shared = weights.mean(1, keepdims=True)
        columns = shared if (np.abs(weights - shared) <= _ALIKE * shared).all() else weights
        fits = [_RidgeFit.of(x, column, alpha) for column in columns.T]
        coefficients, noise, least = np.zeros((x.shape[1], mean.shape[1])), np.zeros(mean.shape[1]), np.zeros(mean.shape[1])
        for index in range(mean.shape[1]):
            fit = fits[index % len(fits)]
            coefficients[:, index], noise[index] = fit.solve(labels[:, index] - average.mean[index])
            least[index] = noise[index] / fit.effective if fit.effective else average.standard_error[index] ** 2
        center, inverse = np.stack([fit.center for fit in fits]), fits[0].inverse
        if len(fits) > 1:  # one matrix for the errors of all: as many as candidates would take too long to read for each prompt
            both = _RidgeFit.of(x, shared[:, 0], alpha)
            inverse = both.inverse
            noise = noise * np.array([both.effective / max(fit.effective, 1e-300) for fit in fits]).clip(max=both.effective)
        return cls(coefficients, average.mean, center, inverse[None], noise, least, float(alpha))

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> tuple[FloatArray, FloatArray]:
        """Mean and error for each prompt."""
        return self.predict(features), np.sqrt(self.least + self.noise * np.maximum(self._leverage(features.astype(np.float64)), 0))

    def predict(self, features: Float32Array, states: TextStates | None = None) -> FloatArray:
        x = features.astype(np.float64)
        if len(self.center) == 1:
            return np.asarray((x - self.center[0]) @ self.coefficients + self.intercept)
        return np.asarray(x @ self.coefficients + (self.intercept - (self.center.T * self.coefficients).sum(0)))

    def _leverage(self, x: FloatArray) -> FloatArray:
        """float64[prompts, 1 or candidates]: how far each prompt is from the labelled ones, by the inverse."""
        if len(self.inverse) == 1:
            away = x - (self.center[0] if len(self.center) == 1 else self.center.mean(0))
            return np.asarray(np.add.reduce((away @ self.inverse[0]) * away, axis=1, keepdims=True))
        leverage = np.empty((len(x), self.candidates))  # files of earlier versions
        for index, (center, inverse) in enumerate(zip(self.center, self.inverse, strict=True)):
            away = x - center
            leverage[:, index] = ((away @ inverse) * away).sum(1)
        return leverage

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "alpha": self.alpha}

    def arrays(self) -> dict[str, AnyArray]:
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Linear:
        return cls(**{name: arrays[name].astype(np.float64) for name in _ARRAYS}, alpha=number(settings["alpha"]))


_ARRAYS = ("coefficients", "intercept", "center", "inverse", "noise", "least")


@dataclass(frozen=True, slots=True)
class _RidgeFit:
    """The part of a ridge regression that depends on features and weights, but not on labels."""

    weights: FloatArray
    center: FloatArray
    away: FloatArray
    inverse: FloatArray
    freedom: float
    """Number of prompts, in units of weight 1, minus the effective number of parameters; at least 1."""
    effective: float
    """Sum of the weights."""

    @classmethod
    def of(cls, x: FloatArray, weights: FloatArray, alpha: float) -> _RidgeFit:
        total = float(weights.sum())
        center = weights @ x / total if total else x.mean(0)
        away = x - center
        gram = (weights[:, None] * away).T @ away
        inverse = np.linalg.inv(gram + alpha * np.eye(x.shape[1])).astype(np.float64)
        used = 1 + float((inverse * gram).sum())
        return cls(weights, center, away, inverse, max(1.0, total - used), total)

    def solve(self, labels: FloatArray) -> tuple[FloatArray, float]:
        """Coefficients and residual variance; labels: float64[prompts], their average subtracted."""
        coefficients = self.inverse @ (self.away.T @ (self.weights * labels))
        residual = labels - self.away @ coefficients
        return coefficients, float((self.weights * residual**2).sum() / self.freedom)
