"""ONNX models as the `onnx` package loads them: what they take and give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


def graph_spec(model: ModelProto) -> GraphSpec:
    """What a graph takes and gives, in its order; a number for a fixed axis, a name for a free one."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: tensor_spec(value) for value in model.graph.input if value.name not in constants}
    return GraphSpec(inputs, {value.name: tensor_spec(value) for value in model.graph.output})


def tensor_spec(value: ValueInfoProto) -> TensorSpec:
    """A tensor's type, as `graph_spec` gives it."""
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    shape = [dim.dim_value or dim.dim_param or f"{value.name}_axis_{axis}" for axis, dim in enumerate(tensor.shape.dim)]
    return TensorSpec(str(tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(shape))


def fix_model_axes(model: ModelProto, lengths: Mapping[str, int]) -> None:
    """Put these lengths in for the free axes of those names; changes `model`."""
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in lengths:
                axis.dim_value = lengths[axis.dim_param]
