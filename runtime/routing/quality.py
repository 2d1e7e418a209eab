"""Quality before an image exists: estimates for the candidates of a pool."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from costroute_rt.candidate import Candidate
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.judgement import Judgement
from costroute_rt.routing.array import FloatArray
from costroute_rt.routing.prompt_encoder import TextStates

PRIOR = "prior"
"""Name of the metric of a table that was not measured, but says what is known of such models."""
_AVERAGES = "averages: the bundle has no router"
_PRIOR = "what is known of such models, not measured: the bundle has no router"


class QualityEstimator(Protocol):
    """Judges a prompt: the quality q_m(x) of each candidate m (CATImage, arXiv 2506.14753, section 4). A router, or averages."""

    @property
    def needs_states(self) -> bool:
        """Whether `judge` reads text states; if not, a prompt is routed without running the text encoder."""

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines that `judge` runs; if there are any, requests take turns."""

    def judge(self, prompt: str, states: TextStates | None) -> Judgement:
        """The expected quality of each candidate.

        states: of this prompt; None if `needs_states` is false.
        """


class AverageQuality:
    """The bundle's own table of averages, the same for every prompt."""

    needs_states = False
    engines: tuple[str, ...] = ()

    def __init__(self, mean: FloatArray, standard_error: FloatArray, basis: str = _AVERAGES) -> None:
        self._judgement = Judgement(mean=mean, standard_error=standard_error, basis=basis)

    @classmethod
    def from_bundle(cls, bundle: Bundle, pool: Iterable[Candidate]) -> AverageQuality:
        """The bundle's quality table, in the order of `pool`."""
        rows = [bundle.quality["candidates"][candidate.name] for candidate in pool]
        basis = _PRIOR if bundle.quality["metric"] == PRIOR else _AVERAGES
        return cls(np.array([row["mean"] for row in rows]), np.array([row["standard_error"] for row in rows]), basis)

    def judge(self, prompt: str, states: TextStates | None) -> Judgement:
        """The averages."""
        return self._judgement
