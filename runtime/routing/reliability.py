"""Honest errors of a router's estimates, by what they missed on prompts that took no part in the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from costroute_rt.judgement import LEVELS
from costroute_rt.routing.array import AnyArray, FloatArray, check_finite

ONE_ERROR = LEVELS.index(0.68)
"""The level whose half-width is a standard error."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Half-widths of intervals around the estimates; 0 for a candidate whose errors were not measured."""

    near: FloatArray
    """float64[LEVELS, candidates]: of a label, for prompts like the labelled ones."""
    far: FloatArray
    """float64[LEVELS, candidates]: of a label, for prompts unlike them; not below `near`."""
    share: FloatArray
    """float64[candidates], 0..1: the part of it that is not the noise of a label, so that `share * near` is of the expected quality."""
    difference: FloatArray
    """float64[candidates, candidates]: of the expected difference of two, near the labels, at the level EQUAL."""
    is_complete: bool = field(init=False, compare=False)
    """Whether the errors of all candidates were measured, so that no estimator's own is needed."""
    _growth: FloatArray = field(init=False, repr=False, compare=False)
    """float64[LEVELS, candidates]: far less near."""
    _wider: FloatArray = field(init=False, repr=False, compare=False)
    """float64[candidates]: that of a standard error, relative to near."""

    def __post_init__(self) -> None:
        check_finite(self.arrays(), near=2, far=2, share=1, difference=2)
        count = len(self.share)
        shapes = self.near.shape, self.far.shape, self.difference.shape
        if shapes != ((len(LEVELS), count), (len(LEVELS), count), (count, count)) or not count:
            raise ValueError(f"half-widths of shapes that do not fit: {shapes} for {count} candidates")
        if min(float(array.min()) for array in self.arrays().values()) < 0 or self.share.max() > 1:
            raise ValueError("half-widths below 0, or shares of noise that are not from 0 to 1")
        near, far = self.near[ONE_ERROR], self.far[ONE_ERROR]
        object.__setattr__(self, "is_complete", bool((near > 0).all()))
        object.__setattr__(self, "_growth", self.far - self.near)
        object.__setattr__(self, "_wider", np.divide(far - near, near, out=np.zeros_like(near), where=near > 0))

    def label_widths(self, trust: FloatArray) -> FloatArray:
        """float64[LEVELS, prompts, candidates]: half-widths of a label's intervals; trust: float64[prompts]."""
        return np.asarray(self.near[:, None] + (1 - trust)[:, None] * self._growth[:, None], dtype=np.float64)

    def errors(self, trust: FloatArray, own: FloatArray | None = None) -> FloatArray:
        """float64[prompts, candidates]: standard errors of the expected quality.

        trust: float64[prompts]. own: what the estimator says, float64[prompts, candidates], for candidates that were not measured; not
        needed if all were.
        """
        near = self.near[ONE_ERROR]
        measured = self.share * (near + (1 - trust)[:, None] * self._growth[ONE_ERROR])
        return np.asarray(measured if own is None else np.where(near > 0, measured, own), dtype=np.float64)

    def differences(self, trust: float) -> FloatArray:
        """float64[candidates, candidates]: half-widths of the expected differences, wider where single candidates' are."""
        if trust == 1:
            return self.difference
        factor = 1 + (1 - trust) * self._wider
        return np.asarray(self.difference * np.maximum.outer(factor, factor), dtype=np.float64)

    def extended(self, order: npt.ArrayLike) -> Reliability:
        """For more candidates, whose errors were not measured, in this order: positions here, beyond the last for added ones."""
        places = np.asarray(order)
        added = max(int(places.max()) + 1 - len(self.share), 0)
        near, far = (np.pad(widths, ((0, 0), (0, added)))[:, places] for widths in (self.near, self.far))
        difference = np.pad(self.difference, (0, added))[np.ix_(places, places)]
        return replace(self, near=near, far=far, share=np.pad(self.share, (0, added), constant_values=1.0)[places], difference=difference)

    def arrays(self) -> dict[str, AnyArray]:
        return {"near": self.near, "far": self.far, "share": self.share, "difference": self.difference}

    @classmethod
    def from_saved(cls, arrays: Mapping[str, AnyArray]) -> Reliability:
        """The reliability whose `arrays` these are; raises KeyError or ValueError."""
        return cls(*(arrays[name].astype(np.float64) for name in ("near", "far", "share", "difference")))
