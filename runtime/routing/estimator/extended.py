"""The estimator that has candidates added to another one, which stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray
from costroute_rt.routing.estimator.addition import Addition
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.estimator.shift import Shift
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.router_network import Network

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Extended:
    """Another estimator's candidates, whose estimates stay bit for bit what they were, and added ones."""

    base: Estimator
    additions: tuple[Addition | Shift, ...]
    order: tuple[int, ...]
    """For each candidate its number among the base's candidates followed by the additions."""

    kind: ClassVar[str] = "extended"

    def __post_init__(self) -> None:
        if isinstance(self.base, Extended) or not self.additions:
            raise ValueError("an extended estimator without additions, or of an extended one")
        if any(each.others != self.base.candidates for each in self.additions):
            raise ValueError(f"additions to other candidates than the {self.base.candidates} of the estimator")
        if sorted(self.order) != list(range(self.base.candidates + len(self.additions))):
            raise ValueError(f"an order of {len(self.order)} candidates that is no permutation")

    @property
    def candidates(self) -> int:
        return len(self.order)

    @property
    def needs_states(self) -> bool:
        return self.base.needs_states

    @property
    def networks(self) -> tuple[Network, ...]:
        return self.base.networks

    @property
    def base_places(self) -> list[int]:
        """Positions of the base's candidates, in their order."""
        return [self.order.index(number) for number in range(self.base.candidates)]

    @property
    def added(self) -> dict[int, int]:
        """Numbers of anchor prompts by the positions of the added candidates."""
        return {self.order.index(self.base.candidates + index): each.prompts for index, each in enumerate(self.additions)}

    def estimate(self, features: Float32Array, states: TextStates | None = None) -> tuple[FloatArray, FloatArray]:
        """Mean and error for each prompt; the added candidates' follow from the others'."""
        mean, error = self.base.estimate(features, states)
        means, errors = zip(*(each.estimate(features, mean, error) for each in self.additions), strict=True)
        order = list(self.order)
        return np.column_stack([mean, *means])[:, order], np.column_stack([error, *errors])[:, order]

    def predict(self, features: Float32Array, states: TextStates | None = None) -> FloatArray:
        return self.estimate(features, states)[0]

    def to_json(self) -> dict[str, Any]:
        additions = [each.to_json() for each in self.additions]
        return {"kind": self.kind, "base": self.base.to_json(), "additions": additions, "order": list(self.order)}

    def arrays(self) -> dict[str, AnyArray]:
        added = {f"{index}/{name}": array for index, each in enumerate(self.additions) for name, array in each.arrays().items()}
        return {**{f"base/{name}": array for name, array in self.base.arrays().items()}, **added}


def base_of(estimator: Estimator) -> Estimator:
    """What candidates were added to; the estimator itself if there are none."""
    return estimator.base if isinstance(estimator, Extended) else estimator


def describe_added(estimator: Estimator, names: Sequence[str]) -> str:
    """What the estimates of added candidates rest on: `; new@4 on 40 anchor prompts`; names: of all candidates."""
    added = estimator.added if isinstance(estimator, Extended) else {}
    named: dict[str, list[str]] = {}
    for place, count in added.items():
        named.setdefault(f"{count:,} anchor prompts" if count else "its settings alone", []).append(names[place])
    return "".join(f"; {_shorten(each)} on {text}" for text, each in named.items())


def _shorten(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
