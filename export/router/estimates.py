"""A router's estimates for many prompts, to judge them by labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from costroute_rt.routing.array import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """A router's estimates for the prompts of some cells."""

    mean: FloatArray
    """float64[prompts, candidates]"""
    standard_error: FloatArray
    trust: FloatArray
    """float64[prompts], 0 (far from every labelled prompt) to 1."""
    average: FloatArray
    """float64[candidates]: its estimates without regard to the prompt."""
    label_widths: FloatArray | None = None
    """float64[LEVELS, prompts, candidates]: half-widths of a label's intervals; None if the router has none."""

    def select(self, index: Any) -> Estimates:
        widths = None if self.label_widths is None else self.label_widths[:, index]
        return Estimates(
            mean=self.mean[index],
            standard_error=self.standard_error[index],
            trust=self.trust[index],
            average=self.average,
            label_widths=widths,
        )
