"""The estimator that averages others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray
from costroute_rt.routing.estimator.extended import Extended
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.router_network import Network


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of other estimators; their errors are correlated, so its error is the mean of theirs."""

    members: tuple[Estimator, ...]

    kind: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        if len({member.candidates for member in self.members}) != 1:
            raise ValueError("a mean of no estimators, or of estimators for different numbers of candidates")

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
        """The mean of the members' means, and of their errors."""
        estimates = [member.estimate(features, states) for member in self.members]
        means, errors = zip(*estimates, strict=True)
        return reduce(np.add, means) / len(means), reduce(np.add, errors) / len(errors)

    def predict(self, features: Float32Array, states: TextStates | None = None) -> FloatArray:
        means = [member.predict(features, states) for member in self.members]
        return reduce(np.add, means) / len(means)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "members": [member.to_json() for member in self.members]}

    def arrays(self) -> dict[str, AnyArray]:
        return {f"{index}/{name}": array for index, member in enumerate(self.members) for name, array in member.arrays().items()}


def find_knn(estimator: Estimator) -> Knn | None:
    """The estimator itself if it is a `Knn`, otherwise the first of its members that is one; an extended estimator's base."""
    if isinstance(estimator, Extended):
        return find_knn(estimator.base)
    if isinstance(estimator, Knn):
        return estimator
    members = estimator.members if isinstance(estimator, Mean) else ()
    return next((found for found in map(find_knn, members) if found is not None), None)
