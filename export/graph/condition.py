"""Finds the part of an exported denoiser that depends on its conditioning alone: keys and values of cross-attention, pooled text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costroute_rt.engines.bundle.manifest import IMAGE_SIZE, TensorSpec
from costroute_rt.engines.bundle.onnx_model import graph_spec, tensor_spec
from costroute_rt.export.graph.compose import condition_inputs

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_FREE, _APART = 1_000_003, 1_000
"""Placeholder lengths of free axes: no fixed axis has such a length, and no sum or product of axes equals another one's."""


def fold_quotients(denoiser: ModelProto) -> None:
    """Replaces quotients of a fixed axis length and a number, such as the width of an attention head, by constants, in place.

    Shape inference follows sums and products of lengths but not quotients, so it would not find the shapes of the heads.
    """
    from onnx import TensorProto
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array, to_array
    from onnx.shape_inference import infer_shapes

    graph = denoiser.graph
    shapes = {value.name: tensor_spec(value).shape for value in infer_shapes(denoiser).graph.value_info}
    numbers = {tensor.name: to_array(tensor) for tensor in graph.initializer if tensor.data_type == TensorProto.INT64 and not tensor.dims}
    makers = {name: node for node in graph.node for name in node.output}

    def maker(name: str, kind: str) -> NodeProto | None:
        node = makers.get(name)
        return node if node is not None and node.op_type == kind else None

    for node in graph.node:
        if node.op_type != "Div" or node.input[1] not in numbers:
            continue
        length = maker(node.input[0], "Gather")
        shape = maker(length.input[0], "Shape") if length is not None and length.input[1] in numbers else None
        if length is None or shape is None or shape.input[0] not in shapes:
            continue
        axis = shapes[shape.input[0]][int(numbers[length.input[1]])]
        if isinstance(axis, int):
            quotient = from_array(np.array(axis // int(numbers[node.input[1]])))
            node.CopyFrom(make_node("Constant", [], list(node.output), value=quotient))


def find_crossing(denoiser: ModelProto) -> dict[str, TensorSpec]:
    """The tensors that are computed from the conditioning alone and read by the rest of the denoiser, in the graph's order.

    The first axis of each is the conditioning's rows, so that a row can be repeated for the images of a batch; other axes are fixed, or
    named as in the conditioning. Nodes after the last such tensor (shapes, heads folded into rows) belong to the rest.
    """
    conditions = condition_inputs(graph_spec(denoiser))
    nodes = denoiser.graph.node
    if any(attribute.HasField("g") for node in nodes for attribute in node.attribute):
        return {}  # the subgraphs of a node read tensors that are not among its inputs
    others, text = set(graph_spec(denoiser).inputs) - set(conditions), set(conditions)
    for node in nodes:
        if not others.isdisjoint(node.input):
            others.update(filter(None, node.output))
        elif not text.isdisjoint(node.input):
            text.update(filter(None, node.output))
    specs = _specs_by_row(denoiser)
    found: list[str] = []
    read = {value.name for value in denoiser.graph.output}  # tensors that nodes of the rest read
    for node in reversed(nodes):
        leaving = [name for name in node.output if name in read]
        if leaving and all(name in text and name in specs for name in leaving):
            found = leaving + found
        elif leaving:
            read.update(node.input)
    return {name: specs[name] for name in found}


def _specs_by_row(denoiser: ModelProto) -> dict[str, TensorSpec]:
    """The inner tensors whose first axis is the conditioning's rows and whose other axes are fixed or named as in the conditioning.

    Found by shape inference with a number in place of every name, because it does not propagate names through a reshape.
    """
    from onnx import ModelProto
    from onnx.shape_inference import infer_shapes

    conditions, lengths = condition_inputs(graph_spec(denoiser)), dict[str, int]()
    probe = ModelProto()
    probe.CopyFrom(denoiser)
    for value in probe.graph.input:
        has_rows = value.name in conditions and value.name != IMAGE_SIZE
        for axis, length in enumerate(conditions[value.name].shape if has_rows else ()):
            name = length if axis else "rows"
            if isinstance(name, str):
                value.type.tensor_type.shape.dim[axis].dim_value = lengths.setdefault(name, _FREE + _APART * len(lengths))
    names = {length: name for name, length in lengths.items()}
    specs = {}
    for value in infer_shapes(probe, data_prop=True).graph.value_info:
        spec = tensor_spec(value)
        shape = tuple(names.get(axis, axis) for axis in spec.shape if isinstance(axis, int))
        is_known = len(shape) == len(spec.shape) and all(isinstance(axis, str) or axis < _FREE for axis in shape)
        if is_known and shape[:1] == ("rows",):
            specs[value.name] = TensorSpec(spec.dtype, shape)
    return specs
