"""What an image is worth before it is made: quality estimates for the candidates of a pool."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.candidate import Pool
from costroute_rt.engines.bundle import Bundle

FloatArray = npt.NDArray[np.float64]


class QualityEstimator(Protocol):
    """Estimates, for one prompt, the quality q_m(x) of each candidate m (CATImage, arXiv 2506.14753, section 4).

    This is the router's place: what a bundle's router learned answers here.
    """

    needs_states: bool
    """Whether `estimate` reads the text states; where it does not, a route is found without running the text encoder."""

    def estimate(self, prompt: str, states: npt.NDArray[np.float32] | None) -> tuple[FloatArray, FloatArray]:
        """Mean and standard error of each candidate's quality, in the pool's order.

        states: float32[1, tokens, width], the prompt's text states, or None where `needs_states` is false.
        Returns two float64[candidates].
        """
        ...


class AverageQuality:
    """The same for every prompt: what each candidate scored on average when the bundle was made."""

    needs_states = False

    def __init__(self, mean: FloatArray, standard_error: FloatArray) -> None:
        self._mean, self._standard_error = mean, standard_error

    @classmethod
    def from_bundle(cls, bundle: Bundle, pool: Pool) -> AverageQuality:
        """The bundle's quality table, in the order of `pool`."""
        rows = [bundle.quality["candidates"][candidate.name] for candidate in pool]
        return cls(np.array([row["mean"] for row in rows]), np.array([row["standard_error"] for row in rows]))

    def estimate(self, prompt: str, states: npt.NDArray[np.float32] | None) -> tuple[FloatArray, FloatArray]:
        """The table, whatever the prompt."""
        return self._mean, self._standard_error
