"""The interface of every quality estimator."""

from __future__ import annotations

from typing import Any, Protocol

from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.router_network import Network


class Estimator(Protocol):
    """Estimates the quality q_m(x) of each candidate m for a prompt x (CATImage, arXiv 2506.14753, section 4).

    The standard error is that of the expected quality, not of one image's score.
    """

    @property
    def kind(self) -> str:
        """Its name in a router's settings: average, knn, linear, transformer, mean or extended."""

    @property
    def candidates(self) -> int:
        """Number of candidates."""

    @property
    def needs_states(self) -> bool:
        """Whether it reads text states in addition to features."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Networks it runs; none where NumPy is enough."""

    def estimate(self, features: Float32Array, states: TextStates | None) -> tuple[FloatArray, FloatArray]:
        """Mean and standard error, two float64[prompts, candidates], always finite.

        features: float32[prompts, width]. states: of the same prompts; may be None where `needs_states` is false.
        """

    def predict(self, features: Float32Array, states: TextStates | None) -> FloatArray:
        """The means of `estimate` alone, bit for bit: faster where nobody reads the errors."""

    def to_json(self) -> dict[str, Any]:
        """Its kind and settings."""

    def arrays(self) -> dict[str, AnyArray]:
        """The arrays a file keeps of it, by name."""
