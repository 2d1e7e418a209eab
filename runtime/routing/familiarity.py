"""How familiar the kind of a prompt is: the distance of its tags from those of the labelled prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray, check_finite
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
    _scaled: Float32Array = field(init=False, repr=False, compare=False)
    _squares: Float32Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_finite({"rows": self.rows}, rows=2)
        if not len(self.rows) or self.rows.shape[1] != len(check_tags(self.tags)) or (np.abs(self.rows) > 1).any():
            raise ValueError(f"tags of shape {self.rows.shape}: expected {len(self.tags)} numbers from 0 to 1 a prompt")
        if not 0 <= self.near <= self.far < float("inf"):
            raise ValueError(f"near and far {self.near} and {self.far}: expected two distances, the second not smaller")
        unit = np.sqrt(self.rows.var(0, dtype=np.float64) + _LEAST_SPREAD**2).astype(np.float32)
        scaled = self.rows / unit
        for name, value in {"_unit": unit, "_scaled": np.ascontiguousarray(scaled.T), "_squares": (scaled**2).sum(1)}.items():
            object.__setattr__(self, name, value)

    def of_prompts(self, prompts: Sequence[str]) -> FloatArray:
        """float64[prompts], 0 to 1; falls linearly from 1 at `near` to 0 at `far`."""
        squares = self._squared(tag_prompts(prompts, self.tags))
        found = np.ones(len(prompts))
        unsure = np.count_nonzero(squares <= self.near**2, axis=1) < min(RANK, len(self.rows))
        if unsure.any():  # else nothing has to be sorted
            found[unsure] = fall(_of_rank(squares[unsure], RANK), self.near, self.far)
        return found

    def distance(self, rows: Float32Array, rank: int = RANK) -> FloatArray:
        """float64[prompts]: Euclidean distance of these tags, float32[prompts, tags], to the labelled prompt of this rank."""
        return _of_rank(self._squared(rows), rank)

    def _squared(self, rows: Float32Array) -> Float32Array:
        """float32[prompts, labelled prompts]: squared distances, apart from rounding."""
        asked = rows / self._unit
        return np.asarray(self._squares - 2 * (asked @ self._scaled) + (asked**2).sum(1, keepdims=True), dtype=np.float32)

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


def _of_rank(squares: Float32Array, rank: int) -> FloatArray:
    """float64[prompts]: the distance of this rank in each row, or the largest."""
    place = min(rank, squares.shape[1]) - 1
    return np.sqrt(np.maximum(np.partition(squares, place, axis=1)[:, place], 0)).astype(np.float64)


def fall(distance: FloatArray, near: float, far: float) -> FloatArray:
    """float64[prompts]: 1 up to `near`, 0 from `far`, linear in between."""
    falling = np.clip((far - distance) / max(far - near, 1e-9), 0, 1)
    return np.where(distance <= near, 1.0, falling)
