"""Networks of a router: components of the bundle like any other, each with one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.error import ConfigError, EngineError, Reason
from costroute_rt.routing.array import AnyArray

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

OpenEngine = Callable[[str, str], "Engine"]
"""Returns the engine of a component and graph of the bundle; opens it if needed."""


@dataclass(frozen=True, slots=True)
class Network:
    """One network and its interface."""

    role: str
    """Role and name of its component."""
    graph: str
    spec: GraphSpec

    @property
    def engine(self) -> str:
        """component/graph"""
        return f"{self.role}/{self.graph}"

    @property
    def file(self) -> str:
        """File of the graph, in the router's folder."""
        return f"{self.role}.onnx"

    @property
    def weights(self) -> str:
        """File of the weights, in the router's folder."""
        return f"{self.role}.safetensors"

    def run(self, engine: Engine, feeds: Mapping[str, AnyArray]) -> AnyArray:
        """The network's output for inputs by name, all on the host. Raises EngineError where it is not finite."""
        outputs = engine.run({name: engine.to_device(np.ascontiguousarray(array)) for name, array in feeds.items()})
        (name,) = self.spec.outputs
        output = np.asarray(engine.to_host(outputs[name]))
        if not np.isfinite(output).all():
            raise EngineError(f"{self.engine} made numbers that are not finite", reason=Reason.FAILED)
        return output


def no_engine(component: str, graph: str) -> Engine:
    """Raises ConfigError: for a router that is inspected or saved, but judges nothing."""
    raise ConfigError("engine", f"{component}/{graph}", "a router opened with its engines, as Runtime.open does")


def estimator_network(width: int, candidates: int) -> Network:
    """The network of the transformer estimator; width: of the text states."""
    states = TensorSpec("float32", ("batch", "tokens", width))
    mean = TensorSpec("float32", ("batch", candidates))
    return Network(
        "router_estimator", "estimate", GraphSpec({"states": states, "lengths": TensorSpec("int64", ("batch",))}, {"mean": mean})
    )


def encoder_network(width: int) -> Network:
    """The network of a sentence encoder; width: of its embedding. Its token axis is not that of the family's text encoder."""
    ids = TensorSpec("int64", ("batch", "prompt_tokens"))
    embedding = TensorSpec("float32", ("batch", width))
    return Network("router_encoder", "encode", GraphSpec({"input_ids": ids, "attention_mask": ids}, {"embedding": embedding}))
