"""What an image is worth before it is made: quality estimates for the candidates of a pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.candidate import Pool
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.routing.prompt_encoder import TextStates

FloatArray = npt.NDArray[np.float64]

LEAST_TRUST = 0.5
"""Below this a person is told that the prompt is unlike the labelled ones."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A labelled prompt like the one asked about."""

    prompt: str
    similarity: float
    """Cosine of the two prompts' features, -1..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is expected of each candidate for one prompt, in the pool's order."""

    mean: FloatArray
    """float64[candidates]: expected quality."""
    standard_error: FloatArray
    trust: float = 1.0
    """How much of `mean` is the prompt's own, 0..1; the rest is the candidates' averages. 1 where there is nothing but averages."""
    basis: str
    """One line for people: where these numbers come from."""
    nearest: tuple[Neighbour, ...] = ()
    """The labelled prompts most like it, the nearest first."""

    @property
    def note(self) -> str | None:
        """What a person should know before relying on it."""
        return "far from every labelled prompt: averages are used" if self.trust < LEAST_TRUST else None

    def to_json(self) -> dict[str, Any]:
        """How the numbers came to be, ready for `json.dumps`; the numbers themselves are the route's."""
        nearest = [{"prompt": each.prompt, "similarity": round(each.similarity, 4)} for each in self.nearest]
        return {"basis": self.basis, "trust": round(self.trust, 4), "nearest": nearest}


class QualityEstimator(Protocol):
    """Judges, for one prompt, the quality q_m(x) of each candidate m (CATImage, arXiv 2506.14753, section 4): a router, or averages."""

    @property
    def needs_states(self) -> bool:
        """Whether `judge` reads the text states; where it does not, a route is found without running the text encoder."""

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines that `judge` runs: where there is one, requests take turns."""

    def judge(self, prompt: str, states: TextStates | None) -> Judgement:
        """What is expected of each candidate.

        states: of this one prompt, or None where `needs_states` is false.
        """


class AverageQuality:
    """The same for every prompt: what each candidate scored on average when the bundle was made."""

    needs_states = False
    engines: tuple[str, ...] = ()

    def __init__(self, mean: FloatArray, standard_error: FloatArray) -> None:
        self._judgement = Judgement(mean=mean, standard_error=standard_error, basis="averages: the bundle has no router")

    @classmethod
    def from_bundle(cls, bundle: Bundle, pool: Pool) -> AverageQuality:
        """The bundle's quality table, in the order of `pool`."""
        rows = [bundle.quality["candidates"][candidate.name] for candidate in pool]
        return cls(np.array([row["mean"] for row in rows]), np.array([row["standard_error"] for row in rows]))

    def judge(self, prompt: str, states: TextStates | None) -> Judgement:
        """The table, whatever the prompt."""
        return self._judgement
