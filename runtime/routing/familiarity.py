"""How familiar the kind of a prompt is: the distance of its tags from those of the labelled prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray, check_finite
from costroute_rt.routing.largest import find_largest
from costroute_rt.routing.prompt_tag import TAGS, check_tags, tag_prompts
from costroute_rt.routing.setting import number, text

RANK = 5
"""A prompt's distance is that to the labelled prompt of this rank."""
_LEAST_SPREAD = 0.2
"""A tag that hardly varies among the labelled prompts is measured in this unit, so that a prompt which has it is far."""


@dataclass(frozen=True, slots=True)
class Familiarity:
    """1 for kinds of prompts that were labelled, 0 for kinds that were not, by tags (see `prompt_tag`).

    Words tell little of that: among many labelled prompts one with similar words is found for nearly every prompt.
    """

    rows: Float32Array
    """float32[prompts, tags]: tags of the labelled prompts, 0 to 1."""
    near: float
    """Distance up to which a prompt is familiar. A unit of a tag is about its standard deviation among the labelled prompts."""
    far: float
    """Distance from which it is not familiar at all."""
    tags: tuple[str, ...] = TAGS
    _unit: Float32Array = field(init=False, repr=False, compare=False)
    _table: Float32Array = field(init=False, repr=False, compare=False)
    """float32[tags + 1, prompts]: twice the tags in these units, and minus the square of their length."""

    def __post_init__(self) -> None:
        check_finite({"rows": self.rows}, rows=2)
        if not len(self.rows) or self.rows.shape[1] != len(check_tags(self.tags)) or (np.abs(self.rows) > 1).any():
            raise ValueError(f"tags of shape {self.rows.shape}: expected {len(self.tags)} numbers from 0 to 1 a prompt")
        if not 0 <= self.near <= self.far < float("inf"):
            raise ValueError(f"near and far {self.near} and {self.far}: expected two distances, the second not smaller")
        unit = np.sqrt(self.rows.var(0, dtype=np.float64) + _LEAST_SPREAD**2).astype(np.float32)
        scaled = self.rows / unit
        object.__setattr__(self, "_unit", unit)
        object.__setattr__(self, "_table", np.concatenate([2 * scaled.T, -(scaled**2).sum(1)[None]]))

    def of_prompts(self, prompts: Sequence[str]) -> FloatArray:
        """float64[prompts], 0 to 1; falls linearly from 1 at `near` to 0 at `far`."""
        closeness, squares = self._compare(tag_prompts(prompts, self.tags))
        distance, wanted = np.zeros(len(prompts)), min(RANK, len(self.rows))
        for index, row in enumerate(closeness):
            if np.count_nonzero(row >= squares[index] - self.near**2) < wanted:  # else it is near, however far exactly
                distance[index] = _of_rank(row, squares[index], RANK)
        return fall(distance, self.near, self.far)

    def distance(self, rows: Float32Array, rank: int = RANK) -> FloatArray:
        """float64[prompts]: Euclidean distance of these tags, float32[prompts, tags], to the labelled prompt of this rank."""
        pairs = zip(*self._compare(rows), strict=True)
        return np.array([_of_rank(row, square, rank) for row, square in pairs], dtype=np.float64)

    def _compare(self, rows: Float32Array) -> tuple[Float32Array, Float32Array]:
        """float32[prompts, labelled prompts]: closeness of these tags to each labelled prompt's; float32[prompts]: their squared lengths.

        The squared distance is the squared length minus the closeness, apart from rounding.
        """
        asked = np.ones((len(rows), len(self.tags) + 1), dtype=np.float32)
        np.divide(rows, self._unit, out=asked[:, :-1])
        closeness = asked @ self._table
        return closeness, np.add.reduce(asked[:, :-1] ** 2, axis=1)

    def to_json(self) -> dict[str, Any]:
        return {"tags": list(self.tags), "near": self.near, "far": self.far}

    def arrays(self) -> dict[str, AnyArray]:
        """The arrays to save, by name."""
        return {"rows": self.rows}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Familiarity:
        """What `to_json` and `arrays` gave; raises KeyError, TypeError, ValueError or ConfigError."""
        tags = tuple(text(name) for name in settings["tags"])
        return cls(arrays["rows"].astype(np.float32), number(settings["near"]), number(settings["far"]), tags)


def _of_rank(closeness: Float32Array, square: np.float32, rank: int) -> float:
    """The distance of this rank, or the largest; closeness, square: of one prompt, by `_compare`."""
    last = find_largest(closeness, rank)[-1]
    return math.sqrt(max(square - closeness[last], 0))


def fall(distance: FloatArray, near: float, far: float) -> FloatArray:
    """float64[prompts]: 1 up to `near`, 0 from `far`, linear in between."""
    if far - near < 1e-9:
        return np.asarray(distance <= near, dtype=np.float64)
    return np.asarray(np.minimum(np.maximum((far - distance) / (far - near), 0), 1))
