"""How much the effect of the prompt counts: between the averages and an estimator's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.routing.array import FloatArray
from costroute_rt.routing.setting import number


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """Factors of the prompt's effect: q = average + factor * (estimate - average). 0 ignores the prompt, 1 believes the estimator."""

    near: float = 1.0
    """For prompts like the labelled ones."""
    far: float = 0.0
    """For prompts unlike all of them."""

    def __post_init__(self) -> None:
        if not (0 <= self.near <= 1 and 0 <= self.far <= 1):
            raise ValueError(f"shrinkage of {self.near} and {self.far}: expected two numbers from 0 to 1")

    def __bool__(self) -> bool:
        """Whether the prompt counts at all."""
        return self.near > 0 or self.far > 0

    def factor(self, trust: FloatArray, reach: FloatArray | float = 1.0) -> FloatArray:
        """float64[prompts], 0 to 1: reach * (trust * near + (1 - trust) * far).

        trust: float64[prompts], how close each prompt is to the labelled ones. reach: 0 where it has nothing in common with them.
        """
        return np.asarray(reach * (trust * self.near + (1 - trust) * self.far), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        return {"near": self.near, "far": self.far}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Shrinkage:
        """The shrinkage that `to_json` wrote; raises KeyError or ValueError."""
        return cls(number(values["near"]), number(values["far"]))


NO_SHRINKAGE = Shrinkage()
"""The estimator's own numbers near the labelled prompts, averages far from them."""
