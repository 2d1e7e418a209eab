"""One candidate that was added to a fitted router and differs from another in its decoder alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray, check_finite
from costroute_rt.routing.setting import whole_number

_ARRAYS = ("offset", "error")


@dataclass(frozen=True, slots=True)
class Shift:
    """q_new(x) = q_twin(x) + offset: both decode the same latents, so that which of them is better does not depend on the prompt."""

    offset: FloatArray
    """float64[1], below 0."""
    error: FloatArray
    """float64[1]: standard error of the offset."""
    twin: int
    """Number of the candidate with the other decoder among the others."""
    others: int
    """Number of the others."""
    prompts: int
    """Anchor prompts that have labels of both."""

    def __post_init__(self) -> None:
        check_finite(self.arrays(), offset=1, error=1)
        if self.offset.shape != (1,) or self.error.shape != (1,) or not 0 <= self.twin < self.others or self.prompts < 0:
            raise ValueError("a shift that does not fit")

    def estimate(self, features: Float32Array, mean: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard error, float64[prompts]; mean, error: float64[prompts, others], the others' estimates."""
        return mean[:, self.twin] + self.offset, np.hypot(error[:, self.twin], self.error)

    def to_json(self) -> dict[str, Any]:
        return {"twin": self.twin, "others": self.others, "prompts": self.prompts}

    def arrays(self) -> dict[str, AnyArray]:
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Shift:
        offset, error = (arrays[name].astype(np.float64) for name in _ARRAYS)
        twin, others, prompts = (whole_number(settings[name]) for name in ("twin", "others", "prompts"))
        return cls(offset, error, twin=twin, others=others, prompts=prompts)
