"""A small world to estimate in, and a stand-in for a transformer's engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.routing.array import Float32Array, FloatArray
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.estimator.transformer import Transformer
from costroute_rt.routing.prompt_encoder import TextStates


class World:
    """Prompts in two kinds; each candidate is good at one of them, and the third at neither."""

    def __init__(self, prompts: int = 200, noise: float = 0.05, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.kind = rng.integers(0, 2, prompts)
        self.features = (np.eye(2, 8)[self.kind] + 0.1 * rng.normal(size=(prompts, 8))).astype(np.float32)
        self.truth = np.stack([0.4 + 0.3 * (self.kind == 0), 0.4 + 0.3 * (self.kind == 1), np.full(prompts, 0.3)], axis=1)
        self.variance = np.full(self.truth.shape, noise**2)
        self.mean = self.truth + noise * rng.normal(size=self.truth.shape)


def states_of(features: Float32Array) -> TextStates:
    """Three tokens, of which up to two are padding full of nonsense."""
    states = np.stack([features, np.roll(features, 1, axis=1), -features], axis=1)
    lengths = 1 + (100 * np.abs(features).sum(1)).astype(np.int64) % 3
    states[np.arange(3) >= lengths[:, None]] = 1e4
    return TextStates(states, lengths)


def estimate(estimator: Estimator, features: Float32Array) -> tuple[FloatArray, FloatArray]:
    return estimator.estimate(features, states_of(features) if estimator.needs_states else None)


class StandIn:
    """An engine that reads the first token's state, and knows ridge regression."""

    def __init__(self, linear: Linear, axes: tuple[int | str, int | str] = ("batch", "tokens")) -> None:
        self.inputs = {"states": TensorSpec("float32", (*axes, len(linear.coefficients)))}
        self._linear, self.shapes = linear, list[tuple[int, ...]]()

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        states, lengths = feeds["states"], feeds["lengths"]
        assert (states.dtype, lengths.dtype) == (np.float32, np.int64)
        self.shapes.append(states.shape)
        return {"mean": self._linear.estimate(states[:, 0], None)[0].astype(np.float32)}

    def to_device(self, array: Any) -> Any:
        return array

    def to_host(self, value: Any) -> Any:
        return value


def stand_in(features: Float32Array, mean: FloatArray, variance: FloatArray) -> Transformer:
    """The runtime's side of a transformer, without torch."""
    linear = Linear.fit(features, mean, variance, alpha=1.0)
    engine: Any = StandIn(linear)
    return Transformer(lambda component, graph: engine, linear.estimate(features, None)[1].mean(0), width=features.shape[1])


def make_transformer(axes: tuple[int | str, int | str] = ("batch", "tokens")) -> tuple[Transformer, StandIn, World]:
    """A transformer on a stand-in for its engine."""
    world = World()
    stand: Any = StandIn(Linear.fit(world.features, world.mean, world.variance), axes)
    return Transformer(lambda component, graph: stand, np.full(3, 0.1), width=8), stand, world
