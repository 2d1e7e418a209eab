"""Judgements: the expected quality of each candidate for one prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.value import Value, shorten

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement(Value):
    """Expected quality of each candidate for one prompt, in the pool's order."""

    mean: npt.NDArray[np.float64]
    """float64[candidates]: expected quality."""
    standard_error: npt.NDArray[np.float64]
    trust: float = 1.0
    """How close the prompt is to the labelled ones, 0..1; far from them averages count for more. 1 if there are only averages."""
    basis: str
    """Where these numbers come from, in one line for users."""
    nearest: tuple[Neighbour, ...] = ()
    """The most similar labelled prompts, nearest first."""

    def __repr__(self) -> str:
        best = f", best quality {np.max(self.mean):.3f}" if self.mean.size else ""
        return f"<Judgement of {self.mean.size} candidates{best}, trust {self.trust:.2f}, by {shorten(self.basis, 80)}>"

    @property
    def note(self) -> str | None:
        """A warning for users, if there is one."""
        return "far from every labelled prompt: averages are used" if self.trust < LEAST_TRUST else None

    def to_json(self) -> dict[str, Any]:
        """Where the numbers come from, ready for `json.dumps`; the numbers themselves are in the route."""
        nearest = [{"prompt": each.prompt, "similarity": round(each.similarity, 4)} for each in self.nearest]
        return {"basis": self.basis, "trust": round(self.trust, 4), "nearest": nearest}
