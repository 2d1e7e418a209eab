"""Networks of a router's own, a few nodes each, written without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from costroute_rt.routing.estimator.transformer import Transformer
from costroute_rt.routing.prompt_encoder import TOKENIZER, EngineEncoder, TextStates
from costroute_rt.routing.router_network import Network, OpenEngine, encoder_network, estimator_network, no_engine
from tests.tiny_bundle import END, Graph, write_tokenizer

EMBEDDING, MOST_TOKENS = 6, 12


def write_estimator(folder: Path, width: int, candidates: int) -> np.ndarray:
    """The mean state of a prompt's own tokens, times a matrix; returns the matrix."""
    matrix = np.random.default_rng(1).normal(size=(width, candidates)).astype(np.float16)
    network, graph = estimator_network(width, candidates), Graph({"matrix": matrix})
    positions = graph.op("Range", graph.const(0), _length(graph, "states", 1), graph.const(1))
    is_own = graph.op("Less", positions, graph.op("Unsqueeze", "lengths", graph.const([1])))
    graph.op("MatMul", _mean(graph, "states", is_own), graph.weight("matrix"), out="mean")
    _save(graph, folder, network)
    return matrix.astype(np.float32)


def write_encoder(folder: Path) -> np.ndarray:
    """The mean of a table's rows for a prompt's tokens, and its tokenizer; returns the table."""
    tokens = write_tokenizer(folder / TOKENIZER)
    table = np.random.default_rng(2).normal(size=(tokens, EMBEDDING)).astype(np.float16)
    graph = Graph({"table": table})
    rows = graph.op("Gather", graph.weight("table"), "input_ids")
    graph.op("Identity", _mean(graph, rows, graph.op("Cast", "attention_mask", to=9)), out="embedding")
    _save(graph, folder, encoder_network(EMBEDDING))
    return table.astype(np.float32)


def open_encoder(folder: Path, open_engine: OpenEngine = no_engine) -> EngineEncoder:
    """Of what `write_encoder` wrote."""
    return EngineEncoder.open(folder, open_engine, name="small", embedding_width=EMBEDDING, max_length=MOST_TOKENS, pad=END)


def expect(matrix: np.ndarray, states: TextStates) -> np.ndarray:
    """What the estimator's network gives."""
    return np.stack([tokens[:length].mean(0) @ matrix for tokens, length in zip(states.states, states.lengths, strict=True)])


class TableEngine:
    """The encoder's network in numpy; remembers what it was fed."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.ids = table, list[np.ndarray]()

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        ids, mask = feeds["input_ids"], feeds["attention_mask"]
        assert (ids.dtype, mask.dtype, ids.shape) == (np.int64, np.int64, mask.shape)
        self.ids.append(ids)
        return {"embedding": self.table[ids].mean(1)}

    def to_device(self, array: Any) -> Any:
        return array

    def to_host(self, value: Any) -> Any:
        return value


def make_estimator(width: int, candidates: int, open_engine: OpenEngine = no_engine) -> Transformer:
    """Of what `write_estimator` wrote."""
    return Transformer(open_engine, np.full(candidates, 0.02), width=width)


def _mean(graph: Graph, states: str, is_own: str) -> str:
    """states: [n, t, w], is_own: bool[n, t] -> [n, w]"""
    own = graph.op("Unsqueeze", graph.op("Cast", is_own, to=1), graph.const([2]))
    total = graph.op("ReduceSum", graph.op("Mul", states, own), graph.const([1]), keepdims=0)
    return str(graph.op("Div", total, graph.op("ReduceSum", own, graph.const([1]), keepdims=0)))


def _length(graph: Graph, name: str, axis: int) -> str:
    return str(graph.op("Gather", graph.op("Shape", name), graph.const(axis)))


def _save(graph: Graph, folder: Path, network: Network) -> None:
    sides = ({name: (port.dtype, list(port.shape)) for name, port in side.items()} for side in (network.spec.inputs, network.spec.outputs))
    graph.save(folder / network.file, network.weights, *sides)
