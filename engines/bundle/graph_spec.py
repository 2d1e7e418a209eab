"""Inputs and outputs of a graph: fixing free axes to known lengths, and conversion to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec


def fix_axes(spec: GraphSpec, lengths: Mapping[str, int]) -> GraphSpec:
    """The same inputs and outputs, with free axes fixed to these lengths by name."""

    def fix(port: TensorSpec) -> TensorSpec:
        return TensorSpec(port.dtype, tuple(lengths.get(axis, axis) if isinstance(axis, str) else axis for axis in port.shape))

    inputs, outputs = ({name: fix(port) for name, port in side.items()} for side in (spec.inputs, spec.outputs))
    return GraphSpec(inputs, outputs)


def to_json(spec: GraphSpec) -> dict[str, Any]:
    """Plain data that `parse_graph_spec` reads."""
    sides = {"inputs": spec.inputs, "outputs": spec.outputs}
    return {side: {name: {"dtype": each.dtype, "shape": list(each.shape)} for name, each in ports.items()} for side, ports in sides.items()}
