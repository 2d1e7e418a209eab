"""Which estimators are tried, with which settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costroute_rt.error import ConfigError
from costroute_rt.routing.array import Float32Array, FloatArray, IntArray
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.prompt_encoder import TextStates

GRID: dict[str, tuple[float, ...]] = {"knn": (15, 30, 60), "linear": (0.1, 0.3, 1, 3, 10, 30, 100), "transformer": (64,)}
"""Settings that are tried: numbers of neighbours, ridge penalties on features of mean norm 1, and a width."""
_NAMES = {"knn": "k", "linear": "alpha", "transformer": "width"}
ESTIMATORS = ("knn", "linear", "mean")
"""Estimators that are tried by default: they need neither torch nor text states."""
ALL_ESTIMATORS = (*ESTIMATORS, "transformer")
DIMENSIONS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How a router is fitted."""

    estimators: tuple[str, ...] = ESTIMATORS
    """Estimators to choose from."""
    folds: int = 5
    """Folds of the cross-validation."""
    seed: int = 0
    dimensions: int = DIMENSIONS
    """Features per prompt after the reduction."""

    strict: bool = False
    """Whether the router asks for evidence of a gain at each trade-off, beside the shrinkage."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.estimators if name not in ALL_ESTIMATORS]
        if unknown or not self.estimators:
            raise ConfigError("estimator", ", ".join(unknown), "one of " + ", ".join(ALL_ESTIMATORS))
        if self.folds < 2:
            raise ConfigError("folds", self.folds, "2 or more")


USUAL = FitOptions()
"""The options of `costroute-rt fit-router`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An estimator with its settings: one member, or several that are averaged."""

    members: tuple[tuple[str, float], ...]

    @property
    def kind(self) -> str:
        return self.members[0][0] if len(self.members) == 1 else "mean"

    def __str__(self) -> str:
        words = [f"{kind} ({_NAMES[kind]} {value:g})" for kind, value in self.members]
        return words[0] if len(words) == 1 else "mean of " + " and ".join(words)

    def fit(
        self,
        features: Float32Array,
        mean: FloatArray,
        variance: FloatArray,
        states: TextStates | None = None,
        groups: IntArray | None = None,
    ) -> Estimator:
        """The estimator, fitted; arrays as in `Average.fit` and `Knn.fit`.

        states, groups: of the same prompts, for a transformer. Raises BackendError for a transformer if torch is not installed.
        """
        fitted: list[Estimator] = []
        for kind, value in self.members:
            if kind == "knn":
                fitted.append(Knn.fit(features, mean, variance, k=int(value)))
            elif kind == "linear":
                fitted.append(Linear.fit(features, mean, variance, alpha=value))
            elif states is None:
                raise ConfigError("states", None, "the prompts' text states, which a transformer reads")
            else:
                from costroute_rt.export.router.transformer import fit_transformer

                fitted.append(fit_transformer(states, mean, variance, groups=groups, width=int(value)))
        return fitted[0] if len(fitted) == 1 else Mean(tuple(fitted))


def grid_of(estimators: Sequence[str]) -> list[Setting]:
    """Every setting of a single estimator that these estimators need; a mean needs those of all that are tried by default."""
    kinds = [kind for kind in GRID if kind in estimators or ("mean" in estimators and kind in ESTIMATORS)]
    return [Setting(((kind, value),)) for kind in kinds for value in GRID[kind]]
