"""The estimator that runs a network over text states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray
from costroute_rt.routing.prompt_encoder import TextStates, check_states
from costroute_rt.routing.router_network import Network, OpenEngine, estimator_network
from costroute_rt.routing.setting import number, whole_number

_CHUNK = 1024
"""Prompts in one call of the network, unless its engine has a fixed batch size."""


class Transformer:
    """A small network over the text encoder's token states, with one head per candidate; fitted by `export.router.transformer`."""

    kind: ClassVar[str] = "transformer"
    needs_states: ClassVar[bool] = True

    def __init__(self, open_engine: OpenEngine, standard_error: FloatArray, *, width: int) -> None:
        """standard_error: float64[candidates], the same for every prompt. width: of the states."""
        if standard_error.ndim != 1 or not len(standard_error) or not (np.isfinite(standard_error) & (standard_error >= 0)).all():
            raise ValueError("standard_error: expected a number of 0 or more for each candidate")
        if width < 1:
            raise ConfigError("width", width, "1 or more")
        self.open_engine, self.standard_error, self._width = open_engine, standard_error, width
        self._network = estimator_network(width, len(standard_error))

    @property
    def candidates(self) -> int:
        return len(self.standard_error)

    @property
    def networks(self) -> tuple[Network, ...]:
        return (self._network,)

    def estimate(self, features: Float32Array, states: TextStates | None) -> tuple[FloatArray, FloatArray]:
        """Mean and error for each prompt, from its states alone.

        Raises ConfigError for states of another width or of other prompts, EngineError where the network's output is not finite.
        """
        states = check_states(states, len(features), self._width)
        engine = self.open_engine(self._network.role, self._network.graph)
        batch, tokens, _ = engine.inputs["states"].shape
        step = batch if isinstance(batch, int) else _CHUNK
        mean = np.empty((len(features), self.candidates))
        for start in range(0, len(features), step):
            lengths = states.lengths[start : start + step]
            most = tokens if isinstance(tokens, int) else int(lengths.max())
            feeds: dict[str, AnyArray] = {"states": states.states[start : start + step, :most], "lengths": lengths}
            mean[start : start + step] = self._network.run(engine, feeds)
        return mean, np.broadcast_to(self.standard_error, mean.shape).copy()

    def predict(self, features: Float32Array, states: TextStates | None) -> FloatArray:
        return self.estimate(features, states)[0]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "width": self._width, "standard_error": self.standard_error.tolist()}

    def arrays(self) -> dict[str, AnyArray]:
        return {}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], open_engine: OpenEngine) -> Transformer:
        error = np.array([number(value) for value in settings["standard_error"]])
        return cls(open_engine, error, width=whole_number(settings["width"]))
