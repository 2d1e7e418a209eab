"""A router's estimates for many prompts, to judge them by labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.export.router import curve
from costroute_rt.export.router.curve import Routed
from costroute_rt.judgement import Evidence
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

    evidence: Evidence | None = None
    """What a strict router asks at each trade-off; None if it is not strict."""

    def select(self, index: Any) -> Estimates:
        """Those of some prompts."""
        widths = None if self.label_widths is None else self.label_widths[:, index]
        own = {name: getattr(self, name)[index] for name in ("mean", "standard_error", "trust")}
        return replace(self, **own, label_widths=widths)

    def at(self, lam: float, cost: FloatArray) -> FloatArray:
        """float64[prompts, candidates]: the means that count at this multiplier, as `Judgement.at` has them; cost: float64[candidates]."""
        if self.evidence is None:
            return self.mean
        return np.asarray(self.average + self.evidence.share(lam * cost) * (self.mean - self.average), dtype=np.float64)

    def route(self, cost: FloatArray, lams: npt.ArrayLike | None = None) -> Routed:
        """What the router chooses at each multiplier; see `curve.route`."""
        routed = curve.route(self.mean, cost, lams)
        if self.evidence is None or routed.multiplier is None:
            return routed
        choice = [curve.route(self.at(lam, cost), cost, lam).choice[0] for lam in routed.multiplier.tolist()]
        return replace(routed, choice=np.stack(choice))
