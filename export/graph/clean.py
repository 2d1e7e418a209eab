"""Clean-up of a graph that torch's exporter wrote: fewer and plainer nodes, the same numbers. Weights are not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from costroute_rt.error import BundleError

Array = npt.NDArray[Any]

_FOLDED = frozenset({"Cast", "Concat", "Cos", "Div", "Exp", "Mul", "Range", "Reshape", "Sin", "Slice", "Sub", "Unsqueeze"})
"""Operators that are computed now if all that they read is constant."""
_MOST_FOLDED_VALUES = 4096


def clean(model: ir.Model) -> None:
    """Changes `model`; its initialisers need no data."""
    for node in list(model.graph):
        if node.op_type == "SplitToSequence":
            _make_split(node)
        elif node.op_type == "GroupNormalization":
            _lower_group_norm(node)
    common.IdentityEliminationPass()(model)
    _fold(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)


def _make_split(node: ir.Node) -> None:
    """SplitToSequence and the nodes that read one of its parts -> Split."""
    axis, size = node.attributes["axis"].as_int(), _numbers(node.inputs[1])
    total = int(node.inputs[0].shape[axis])
    sizes = size if size.ndim else np.array([min(int(size), total - start) for start in range(0, total, int(size))])
    parts = _insert(node, "Split", [node.inputs[0], _constant(node, sizes.astype(np.int64))], {"axis": axis}, outputs=len(sizes))
    for reader in list(node.outputs[0].consumers()):
        _replace(reader, parts[_numbers(reader.inputs[1]).item()])
    node.graph.remove(node, safe=True)


def _lower_group_norm(node: ir.Node) -> None:
    """GroupNormalization -> InstanceNormalization of groups: half the time in ONNX Runtime, and fused by OpenVINO."""
    image, scale, bias = node.inputs
    groups, epsilon = node.attributes["num_groups"].as_int(), node.attributes["epsilon"].as_float()
    ones = np.ones(groups, dtype=np.float32)
    inner = _constant(node, np.arange(1, len(image.shape) - 1, dtype=np.int64))
    (grouped,) = _insert(node, "Reshape", [image, _constant(node, np.array([0, groups, -1], dtype=np.int64))])
    inputs = [grouped, _constant(node, ones), _constant(node, 0 * ones)]
    (normal,) = _insert(node, "InstanceNormalization", inputs, {"epsilon": epsilon})
    (sizes,) = _insert(node, "Shape", [image])
    (normal,) = _insert(node, "Reshape", [normal, sizes])
    (scaled,) = _insert(node, "Mul", [normal, *_insert(node, "Unsqueeze", [scale, inner])])
    (result,) = _insert(node, "Add", [scaled, *_insert(node, "Unsqueeze", [bias, inner])])
    _replace(node, result)


def _fold(model: ir.Model) -> None:
    """Computes what depends on constants alone, and leaves out divisions by one."""
    for node in list(model.graph):
        values = [ir.convenience.get_const_tensor(each) if each is not None else None for each in node.inputs]
        is_known = node.op_type in _FOLDED and all(value is not None and value.size <= _MOST_FOLDED_VALUES for value in values)
        if is_known and not any(each.is_graph_output() for each in node.outputs):
            _replace(node, _constant(node, _compute(node, [value.numpy() for value in values if value is not None])))
        elif node.op_type == "Div" and _is_one(node.inputs[1]) and not node.outputs[0].is_graph_output():
            _replace(node, node.inputs[0])


def _compute(node: ir.Node, values: Sequence[Array]) -> Array:
    """The output of a node, by ONNX's own reference implementation."""
    inputs = [
        ir.Value(name=f"input_{index}", type=ir.TensorType(ir.DataType.from_numpy(value.dtype))) for index, value in enumerate(values)
    ]
    copy = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()))
    copy.outputs[0].name = "output"
    copy.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(inputs, copy.outputs, nodes=[copy], opset_imports=node.graph.opset_imports)
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    results: Any = ReferenceEvaluator(proto).run(None, {str(each.name): value for each, value in zip(inputs, values, strict=True)})
    return np.asarray(results[0])


def _is_one(value: ir.Value) -> bool:
    """Whether a value is the fraction 1.0."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size == 1 and tensor.numpy().item() == 1


def _numbers(value: ir.Value) -> Array:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise BundleError(None, "its network splits a tensor by a computed size", "use another model")
    return np.asarray(tensor.numpy())


def _constant(before: ir.Node, values: Array) -> ir.Value:
    """A constant, defined before a node."""
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(values))])
    before.graph.insert_before(before, node)
    node.outputs[0].const_value = ir.tensor(values)
    return node.outputs[0]


def _insert(
    before: ir.Node, kind: str, inputs: Sequence[ir.Value], settings: dict[str, int | float] | None = None, outputs: int = 1
) -> list[ir.Value]:
    attributes = ir.convenience.convert_attributes(settings or {})
    node = ir.Node("", kind, inputs, attributes, num_outputs=outputs)
    before.graph.insert_before(before, node)
    for value in node.outputs:
        value.dtype = ir.DataType.FLOAT
    return list(node.outputs)


def _replace(node: ir.Node, value: ir.Value) -> None:
    """Removes a node of one output; `value` takes its place."""
    if value.shape is None:
        value.shape, value.type = node.outputs[0].shape, node.outputs[0].type
    if node.outputs[0].is_graph_output():
        value.name, node.outputs[0].name = node.outputs[0].name, None
    ir.convenience.replace_all_uses_with(node.outputs[0], value, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
