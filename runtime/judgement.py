"""Judgements: the expected quality of each candidate for one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.value import Value, shorten

LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95)
"""Shares of labels that intervals are meant to cover."""
EQUAL = 0.8
"""Level of the interval of a difference within which two candidates are equal within error."""
LEAST_TRUST = 0.5
"""Below this trust, users are warned that the prompt is unlike the labelled ones."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A labelled prompt similar to the judged one."""

    prompt: str
    similarity: float
    """Cosine of the two prompts' features, -1..1."""

    def __repr__(self) -> str:
        return f"<Neighbour {shorten(self.prompt)}, similarity {self.similarity:.3f}>"


class Evidence(Protocol):
    """How sure it is that routing by the prompt gains."""

    def share(self, penalty: npt.NDArray[np.float64]) -> float:
        """How much the effect of a prompt counts, 0..1; penalty: as in `Judgement.at`."""

    def select(self, columns: Sequence[int]) -> Evidence:
        """The evidence about these candidates, by position."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement(Value):
    """Expected quality of each candidate for one prompt, in the pool's order."""

    mean: npt.NDArray[np.float64]
    """float64[candidates]: expected quality."""
    standard_error: npt.NDArray[np.float64]
    """float64[candidates]: of the expected quality; two thirds of the prompts' are within it."""
    trust: float = 1.0
    """How close the prompt is to the labelled ones, 0..1; far from them averages count for more. 1 if there are only averages."""
    basis: str
    """Where these numbers come from, in one line for users."""
    nearest: tuple[Neighbour, ...] = ()
    """The most similar labelled prompts, nearest first."""
    label_widths: npt.NDArray[np.float64] | None = None
    """float64[LEVELS, candidates]: half-widths of the intervals of one label around `mean`; None if they were not measured."""
    differences: npt.NDArray[np.float64] | None = None
    """float64[candidates, candidates]: differences of `mean` up to these are within error; None if they were not measured."""

    def __repr__(self) -> str:
        best = f", best quality {np.max(self.mean):.3f}" if self.mean.size else ""
        return f"<Judgement of {self.mean.size} candidates{best}, trust {self.trust:.2f}, by {shorten(self.basis, 80)}>"

    average: npt.NDArray[np.float64] | None = None
    """float64[candidates]: expected quality without regard to the prompt; given with `evidence`."""
    evidence: Evidence | None = None
    """What a strict router asks at each trade-off; None if it is not strict."""

    def at(self, penalty: npt.NDArray[np.float64]) -> Judgement:
        """The judgement at one trade-off: that of a strict router moves to the averages as far as the gain there is not sure.

        penalty: float64[candidates], lambda * milliseconds; infinite for candidates that cannot be chosen.
        """
        if self.evidence is None or self.average is None or not np.isfinite(penalty).any():
            return self
        share = self.evidence.share(penalty)
        basis = f"{self.basis}; strict: {share:.0%} of the prompt's effect counts at this trade-off"
        return replace(self, mean=self.average + share * (self.mean - self.average), basis=basis, evidence=None)

    def is_equal(self, one: int, other: int) -> bool:
        """Whether two candidates, by position, are equal within error."""
        return self.differences is not None and bool(abs(self.mean[one] - self.mean[other]) <= self.differences[one, other])

    def label_interval(self, candidate: int, level: float = 0.8) -> tuple[float, float] | None:
        """Ends of the interval of one label of a candidate, by position; None if it was not measured. level: one of LEVELS."""
        if self.label_widths is None or not self.label_widths[:, candidate].any():
            return None
        width = float(self.label_widths[LEVELS.index(level), candidate])
        return float(self.mean[candidate]) - width, float(self.mean[candidate]) + width

    def select(self, columns: Sequence[int]) -> Judgement:
        """The judgement of these candidates, by position, in this order."""
        columns = list(columns)
        return replace(
            self,
            mean=self.mean[columns],
            standard_error=self.standard_error[columns],
            label_widths=None if self.label_widths is None else self.label_widths[:, columns],
            differences=None if self.differences is None else self.differences[np.ix_(columns, columns)],
            average=None if self.average is None else self.average[columns],
            evidence=None if self.evidence is None else self.evidence.select(columns),
        )

    @property
    def note(self) -> str | None:
        """A warning for users, if there is one."""
        return "unlike the labelled prompts: averages count for more" if self.trust < LEAST_TRUST else None

    def to_json(self) -> dict[str, Any]:
        """Where the numbers come from, ready for `json.dumps`; the numbers themselves are in the route."""
        nearest = [{"prompt": each.prompt, "similarity": round(each.similarity, 4)} for each in self.nearest]
        return {"basis": self.basis, "trust": round(self.trust, 4), "nearest": nearest}
