"""Quality estimators: from a prompt's features to the expected quality of each candidate, and how sure that is.

All are fitted to labels with known noise: a label counts by 1 / (its variance + the variance between prompts). A standard error is
that of the expected quality, not of one image's score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError, EngineError, Reason
from costroute_rt.routing.neighbour import Neighbours
from costroute_rt.routing.prompt_encoder import Float32Array, TextStates
from costroute_rt.routing.router_network import Network, OpenEngine, estimator_network, no_engine

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

_LEAST_BETWEEN = 0.05
"""Share of the spread of labels that is taken to be between prompts at the least, however noisy the labels are said to be."""
_ALIKE = 1 / 3
"""Weights of a prompt's labels that differ from their mean by this share or less count as equal."""
_CHUNK = 1024
"""Prompts estimated at a time."""


class Estimator(Protocol):
    """Estimates q_m(x) of each candidate m from what an encoder makes of the prompt x (CATImage, arXiv 2506.14753, section 4)."""

    @property
    def kind(self) -> str:
        """How a router names it: knn, linear, transformer, mean, average."""

    @property
    def candidates(self) -> int:
        """How many it judges."""

    @property
    def needs_states(self) -> bool:
        """Whether it reads the text states beside the features."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """What it runs beside numpy."""

    def estimate(self, features: Float32Array, states: TextStates | None) -> tuple[FloatArray, FloatArray]:
        """Mean and standard error, two float64[prompts, candidates], always finite.

        features: float32[prompts, width]. states: of the same prompts; may be None where `needs_states` is false.
        """

    def to_json(self) -> dict[str, Any]:
        """Its kind and settings."""

    def arrays(self) -> dict[str, AnyArray]:
        """What a file holds of it, by names of its own."""


@dataclass(frozen=True, slots=True)
class Average:
    """The same for every prompt: the labels' weighted mean."""

    mean: FloatArray
    """float64[candidates]"""
    standard_error: FloatArray
    spread: FloatArray
    """float64[candidates]: standard deviation of the labels."""

    kind: ClassVar[str] = "average"
    needs_states: ClassVar[bool] = False
    networks: ClassVar[tuple[Network, ...]] = ()

    def __post_init__(self) -> None:
        _check_finite(self.arrays(), mean=1, standard_error=1, spread=1)
        if not len(self.mean) or not self.mean.shape == self.standard_error.shape == self.spread.shape:
            raise ValueError("an average of nothing, or of arrays of different length")
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
        average = _ratio((weights * labels).sum(0), total)
        spread = np.sqrt(_ratio((weights * (labels - average) ** 2).sum(0), total))
        error = spread * np.sqrt(_ratio((weights**2).sum(0), total**2))
        if not known.all():
            overall = np.array([average[known].mean(), average[known].std() + spread[known].max()]) if known.any() else np.zeros(2)
            average[~known], spread[~known], error[~known] = overall[0], overall[1], overall[1]
        return cls(average, error, spread)

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> tuple[FloatArray, FloatArray]:
        """The averages, whatever the prompts."""
        shape = len(features), len(self.mean)
        return np.broadcast_to(self.mean, shape).copy(), np.broadcast_to(self.standard_error, shape).copy()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def arrays(self) -> dict[str, AnyArray]:
        return {"mean": self.mean, "standard_error": self.standard_error, "spread": self.spread}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Average:
        return cls(*(arrays[name].astype(np.float64) for name in ("mean", "standard_error", "spread")))


class Knn:
    """The k most similar labelled prompts, weighted by cosine similarity and shrunk to the average."""

    kind: ClassVar[str] = "knn"
    needs_states: ClassVar[bool] = False
    networks: ClassVar[tuple[Network, ...]] = ()

    def __init__(
        self, neighbours: Neighbours, weights: Float32Array, labels: Float32Array, average: Average, *, k: int, pseudo: float
    ) -> None:
        """weights, labels: float32[prompts, candidates]; a weight of 0: no label. pseudo: similarity that the average counts for."""
        if k < 1:
            raise ConfigError("k", k, "1 or more")
        if not 0 < pseudo < float("inf"):
            raise ConfigError("pseudo", pseudo, "a finite number above 0")
        features = neighbours.features
        _check_finite({"features": features, "weights": weights, "labels": labels}, features=2, weights=2, labels=2)
        if not len(features) or not weights.shape == labels.shape == (len(features), len(average.mean)) or (weights < 0).any():
            raise ValueError(f"{len(features)} prompts with weights {weights.shape} and labels {labels.shape} do not fit")
        self.neighbours, self._weights, self._labels, self._average = neighbours, weights, labels, average
        self._k, self._pseudo = k, pseudo

    @property
    def candidates(self) -> int:
        return self._average.candidates

    @classmethod
    def fit(cls, features: Float32Array, mean: FloatArray, variance: FloatArray, *, k: int = 30, pseudo: float = 5.0) -> Knn:
        """features: float32[prompts, width], kept as they are; mean, variance: as `Average.fit` takes them."""
        weights, labels = label_weights(mean, variance)
        average = Average.fit(mean, variance)
        return cls(Neighbours(features), weights.astype(np.float32), labels.astype(np.float32), average, k=k, pseudo=pseudo)

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> tuple[FloatArray, FloatArray]:
        """Each prompt's from its own neighbours; where none of them has a label, the average."""
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
        effective = _ratio(total**2, (weights**2).sum(1)) + pseudo
        return mean, np.sqrt(squares / (total + pseudo) / effective)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "k": self._k, "pseudo": self._pseudo}

    def arrays(self) -> dict[str, AnyArray]:
        average = {f"average/{name}": array for name, array in self._average.arrays().items()}
        return {"features": self.neighbours.features, "weights": self._weights, "labels": self._labels, **average}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Knn:
        return cls(
            Neighbours(_float32(arrays["features"])),
            _float32(arrays["weights"]),
            _float32(arrays["labels"]),
            Average.from_saved({}, within(arrays, "average")),
            k=_whole(settings["k"]),
            pseudo=_number(settings["pseudo"]),
        )


@dataclass(frozen=True, slots=True)
class Linear:
    """Ridge regression with an intercept, in closed form; its error is the posterior's (Bishop 2006, eq. 3.59)."""

    coefficients: FloatArray
    """float64[width, candidates]"""
    intercept: FloatArray
    """float64[candidates]: the estimate at `center`."""
    center: FloatArray
    """float64[1 or candidates, width]: one where a prompt's labels weigh alike for every candidate."""
    inverse: FloatArray
    """float64[1 or candidates, width, width]: of the penalised Gram matrix."""
    noise: FloatArray
    """float64[candidates]: residual variance."""
    least: FloatArray
    """float64[candidates]: variance of the intercept."""
    alpha: float

    kind: ClassVar[str] = "linear"
    needs_states: ClassVar[bool] = False
    networks: ClassVar[tuple[Network, ...]] = ()

    def __post_init__(self) -> None:
        _check_finite(self.arrays(), coefficients=2, intercept=1, center=2, inverse=3, noise=1, least=1)
        (width, candidates), (fits, _) = self.coefficients.shape, self.center.shape
        shapes = self.intercept.shape, self.noise.shape, self.least.shape, self.center.shape, self.inverse.shape
        if shapes != ((candidates,), (candidates,), (candidates,), (fits, width), (fits, width, width)) or fits not in (1, candidates):
            raise ValueError(f"a linear estimator of shapes that do not fit: {shapes}")
        if not candidates or (self.noise < 0).any() or (self.least < 0).any():
            raise ValueError("a linear estimator without candidates, or with a variance below 0")

    @property
    def candidates(self) -> int:
        return len(self.intercept)

    @classmethod
    def fit(cls, features: Float32Array, mean: FloatArray, variance: FloatArray, *, alpha: float = 10.0) -> Linear:
        """features: float32[prompts, width]; mean, variance: as `Average.fit` takes them.

        alpha: penalty on squared coefficients beside squared errors of mean weight 1, above 0.
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
        center, inverse = np.stack([fit.center for fit in fits]), np.stack([fit.inverse for fit in fits])
        return cls(coefficients, average.mean, center, inverse, noise, least, float(alpha))

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> tuple[FloatArray, FloatArray]:
        """Each prompt's own."""
        x = features.astype(np.float64)
        shared = len(self.center) == 1
        if shared:
            away = x - self.center[0]
            mean = away @ self.coefficients + self.intercept
            leverage = ((away @ self.inverse[0]) * away).sum(1, keepdims=True)
        else:
            mean = x @ self.coefficients + (self.intercept - (self.center.T * self.coefficients).sum(0))
            leverage = np.empty_like(mean)
            for index, (center, inverse) in enumerate(zip(self.center, self.inverse, strict=True)):
                away = x - center
                leverage[:, index] = ((away @ inverse) * away).sum(1)
        return mean, np.sqrt(self.least + self.noise * np.maximum(leverage, 0))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "alpha": self.alpha}

    def arrays(self) -> dict[str, AnyArray]:
        names = ("coefficients", "intercept", "center", "inverse", "noise", "least")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Linear:
        names = ("coefficients", "intercept", "center", "inverse", "noise", "least")
        return cls(**{name: arrays[name].astype(np.float64) for name in names}, alpha=_number(settings["alpha"]))


@dataclass(frozen=True, slots=True)
class _RidgeFit:
    """What ridge regression of any labels with these features and weights needs."""

    weights: FloatArray
    center: FloatArray
    away: FloatArray
    inverse: FloatArray
    freedom: float
    """Prompts beyond the parameters in use, 1 or more; in units of weight 1."""
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
        """Coefficients and residual variance; labels: float64[prompts] about their average."""
        coefficients = self.inverse @ (self.away.T @ (self.weights * labels))
        residual = labels - self.away @ coefficients
        return coefficients, float((self.weights * residual**2).sum() / self.freedom)


class Transformer:
    """A small network over the text encoder's token states, one head for each candidate; fitted by `export.router.transformer`."""

    kind: ClassVar[str] = "transformer"
    needs_states: ClassVar[bool] = True

    def __init__(self, open_engine: OpenEngine, standard_error: FloatArray, *, width: int) -> None:
        """standard_error: float64[candidates], the same for every prompt. width: of the states."""
        if standard_error.ndim != 1 or not len(standard_error) or not (np.isfinite(standard_error) & (standard_error >= 0)).all():
            raise ValueError("standard_error: expected a number of 0 or more for each candidate")
        if width < 1:
            raise ConfigError("width", width, "1 or more")
        self.open_engine, self.standard_error, self._width = open_engine, standard_error, width
        self._network = estimator_network(width, len(standard_error))

    @property
    def candidates(self) -> int:
        return len(self.standard_error)

    @property
    def networks(self) -> tuple[Network, ...]:
        return (self._network,)

    def estimate(self, features: Float32Array, states: TextStates | None) -> tuple[FloatArray, FloatArray]:
        """Each prompt's own, from its states alone.

        Raises ConfigError for states of another width or of other prompts, EngineError where the network gives no finite numbers.
        """
        if states is None or states.states.ndim != 3 or states.states.shape[::2] != (len(features), self._width):
            found = None if states is None else f"float32{list(states.states.shape)}"
            raise ConfigError("states", found, f"those of {len(features)} prompts, {self._width} wide")
        engine = self.open_engine(self._network.role, self._network.graph)
        batch, tokens, _ = engine.inputs["states"].shape
        step = batch if isinstance(batch, int) else _CHUNK
        mean = np.empty((len(features), self.candidates))
        for start in range(0, len(features), step):
            lengths = states.lengths[start : start + step]
            most = tokens if isinstance(tokens, int) else int(lengths.max())
            feeds = {"states": states.states[start : start + step, :most], "lengths": lengths}
            outputs = engine.run({name: engine.to_device(np.ascontiguousarray(array)) for name, array in feeds.items()})
            mean[start : start + step] = engine.to_host(outputs["mean"])
        if not np.isfinite(mean).all():
            raise EngineError(f"{self._network.engine} made numbers that are not finite", reason=Reason.FAILED)
        return mean, np.broadcast_to(self.standard_error, mean.shape).copy()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "width": self._width, "standard_error": self.standard_error.tolist()}

    def arrays(self) -> dict[str, AnyArray]:
        return {}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray], open_engine: OpenEngine) -> Transformer:
        error = np.array([_number(value) for value in settings["standard_error"]])
        return cls(open_engine, error, width=_whole(settings["width"]))


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of other estimators; as they err together, its error is the mean of theirs."""

    members: tuple[Estimator, ...]

    kind: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        if len({member.candidates for member in self.members}) != 1:
            raise ValueError("a mean of no estimators, or of some that judge different numbers of candidates")

    @property
    def candidates(self) -> int:
        return self.members[0].candidates

    @property
    def needs_states(self) -> bool:
        return any(member.needs_states for member in self.members)

    @property
    def networks(self) -> tuple[Network, ...]:
        return tuple(network for member in self.members for network in member.networks)

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> tuple[FloatArray, FloatArray]:
        """The members' means, averaged."""
        estimates = [member.estimate(features, states) for member in self.members]
        means, errors = zip(*estimates, strict=True)
        return np.add.reduce(means) / len(means), np.add.reduce(errors) / len(errors)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "members": [member.to_json() for member in self.members]}

    def arrays(self) -> dict[str, AnyArray]:
        return {f"{index}/{name}": array for index, member in enumerate(self.members) for name, array in member.arrays().items()}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray], open_engine: OpenEngine) -> Mean:
        members = settings["members"]
        return cls(tuple(load_estimator(member, within(arrays, str(index)), open_engine) for index, member in enumerate(members)))


def load_estimator(settings: Mapping[str, Any], arrays: Mapping[str, AnyArray], open_engine: OpenEngine = no_engine) -> Estimator:
    """The estimator that `to_json` and `arrays` described; raises ValueError, KeyError, TypeError or ConfigError for anything else.

    open_engine: asked for its networks' engines whenever it estimates.
    """
    kind = settings["kind"]
    if kind == "average":
        return Average.from_saved(settings, arrays)
    if kind == "knn":
        return Knn.from_saved(settings, arrays)
    if kind == "linear":
        return Linear.from_saved(settings, arrays)
    if kind == "transformer":
        return Transformer.from_saved(settings, arrays, open_engine)
    if kind == "mean":
        return Mean.from_saved(settings, arrays, open_engine)
    raise ValueError(f"the estimator {kind!r}: expected average, knn, linear, transformer or mean")


def find_knn(estimator: Estimator) -> Knn | None:
    """The estimator, or the member of it, that searches neighbours."""
    if isinstance(estimator, Knn):
        return estimator
    members = estimator.members if isinstance(estimator, Mean) else ()
    return next((found for found in map(find_knn, members) if found is not None), None)


def label_weights(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights of labels, and the labels with 0 where they are missing; both float64[prompts, candidates].

    A weight is proportional to 1 / (variance + variance between prompts), 0 where the label is missing, and 1 on average for each
    candidate over its labels. The variance between prompts is what the labels' spread exceeds their mean variance by.
    """
    known = ~np.isnan(mean)
    labels = np.where(known, mean, 0.0)
    count = np.maximum(known.sum(0), 1)
    noise = np.where(known & ~np.isnan(variance), variance, 0.0)
    center = labels.sum(0) / count
    spread = np.where(known, (labels - center) ** 2, 0.0).sum(0) / count
    between = np.maximum(spread - noise.sum(0) / count, _LEAST_BETWEEN * spread)
    uncertainty = noise + between
    certain = (uncertainty <= 0).any(0)  # labels said to be exact, and all the same: they weigh the same
    weights = np.where(known, 1 / np.where(certain, 1.0, uncertainty), 0.0)
    return weights / np.maximum(weights.sum(0) / count, 1e-300), labels


def within(arrays: Mapping[str, AnyArray], prefix: str) -> dict[str, AnyArray]:
    """The arrays named `prefix/NAME`, by NAME."""
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}/")}


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """above / below, 0 where below is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _check_finite(arrays: Mapping[str, AnyArray], **ranks: int) -> None:
    for name, rank in ranks.items():
        if arrays[name].ndim != rank or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} of shape {arrays[name].shape}: expected finite numbers of rank {rank}")


def _float32(array: AnyArray) -> Float32Array:
    return np.asarray(array, dtype=np.float32)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r}: expected a whole number")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r}: expected a number")
    return float(value)
