"""The tiny bundle as a family whose prompts have weights, in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import TEXT_TOKENS, GraphSpec, TensorSpec
from tests.runtime.fakes import STATES


def make_weighted_bundle(tiny: Bundle, *, takes_chunks: bool = True, **how: Any) -> Bundle:
    """takes_chunks: whether denoisers take the states of several chunks. how: other fields that differ."""
    tokenizers = {name: replace(spec, prompt_syntax="a1111") for name, spec in tiny.tokenizers.items()}
    graphs = {path: _with_chunks(graph) if takes_chunks else graph for path, graph in tiny.graphs.items()}
    return replace(tiny, tokenizers=tokenizers, graphs=graphs, **how)


def _with_chunks(graph: GraphSpec) -> GraphSpec:
    inputs = dict(graph.inputs)
    if STATES in inputs:
        rows, _, width = inputs[STATES].shape
        inputs[STATES] = TensorSpec("float32", (rows, TEXT_TOKENS, width))
    return replace(graph, inputs=inputs)
