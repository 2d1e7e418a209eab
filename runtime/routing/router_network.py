"""Networks that a router runs: components of the bundle like any other, each with one graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.error import ConfigError

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

OpenEngine = Callable[[str, str], "Engine"]
"""Opens the engine of a component and graph of the bundle, or gives the one that is open."""


@dataclass(frozen=True, slots=True)
class Network:
    """One network: what it is for, and what it takes and gives."""

    role: str
    """Of the component, which is called the same."""
    graph: str
    spec: GraphSpec

    @property
    def engine(self) -> str:
        """component/graph"""
        return f"{self.role}/{self.graph}"

    @property
    def file(self) -> str:
        """Of the graph, in the router's folder."""
        return f"{self.role}.onnx"

    @property
    def weights(self) -> str:
        """File of the weights, in the router's folder."""
        return f"{self.role}.safetensors"


def no_engine(component: str, graph: str) -> Engine:
    """Opens nothing: for a router that is looked at, not asked."""
    raise ConfigError("engine", f"{component}/{graph}", "a router opened with its engines, as Runtime.open does")


def estimator_network(width: int, candidates: int) -> Network:
    """Of the transformer estimator; width: of the text states."""
    states = TensorSpec("float32", ("batch", "tokens", width))
    mean = TensorSpec("float32", ("batch", candidates))
    return Network(
        "router_estimator", "estimate", GraphSpec({"states": states, "lengths": TensorSpec("int64", ("batch",))}, {"mean": mean})
    )


def encoder_network(width: int) -> Network:
    """Of a prompt encoder of the router's own; width: of its embedding. The axis of its own tokens has a name of its own."""
    ids = TensorSpec("int64", ("batch", "prompt_tokens"))
    embedding = TensorSpec("float32", ("batch", width))
    return Network("router_encoder", "encode", GraphSpec({"input_ids": ids, "attention_mask": ids}, {"embedding": embedding}))
