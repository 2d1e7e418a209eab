"""Quality before an image exists: estimates for the candidates of a pool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.candidate import Candidate
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import PRIOR
from costroute_rt.engines.bundle.pool_file import ORDER
from costroute_rt.judgement import Judgement
from costroute_rt.routing.prompt_encoder import TextStates

_BASES = {ORDER: "the order of preference", PRIOR: "what is known of such models, not measured"}


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
    """The pool's own table of averages, the same for every prompt."""

    needs_states = False
    engines: tuple[str, ...] = ()

    def __init__(self, mean: npt.ArrayLike, standard_error: npt.ArrayLike, metric: str = "") -> None:
        basis = f"{_BASES.get(metric, 'averages')}: there is no router"
        self._judgement = Judgement(mean=np.array(mean, dtype=float), standard_error=np.array(standard_error, dtype=float), basis=basis)

    @classmethod
    def from_bundle(cls, bundle: Bundle, pool: Iterable[Candidate]) -> AverageQuality:
        """The bundle's quality table, in the order of `pool`."""
        rows = [bundle.quality["candidates"][candidate.name] for candidate in pool]
        return cls([row["mean"] for row in rows], [row["standard_error"] for row in rows], bundle.quality["metric"])

    def judge(self, prompt: str, states: TextStates | None) -> Judgement:
        """The averages."""
        return self._judgement


class Selected:
    """An estimator of more candidates than may be used."""

    def __init__(self, inner: QualityEstimator, columns: Sequence[int]) -> None:
        """columns: positions of the candidates that may be used, in their order, among those of `inner`."""
        self._inner, self._columns = inner, list(columns)

    @property
    def needs_states(self) -> bool:
        return self._inner.needs_states

    @property
    def engines(self) -> tuple[str, ...]:
        return self._inner.engines

    def judge(self, prompt: str, states: TextStates | None) -> Judgement:
        """The judgement of `inner` about these candidates."""
        return self._inner.judge(prompt, states).select(self._columns)
