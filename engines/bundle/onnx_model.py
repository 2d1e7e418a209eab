"""Inputs and outputs of ONNX models that were loaded with the `onnx` package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


def graph_spec(model: ModelProto) -> GraphSpec:
    """Inputs and outputs of a model, in its order; a fixed axis is a number, a free one a name."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: tensor_spec(value) for value in model.graph.input if value.name not in constants}
    return GraphSpec(inputs, {value.name: tensor_spec(value) for value in model.graph.output})


def tensor_spec(value: ValueInfoProto) -> TensorSpec:
    """Dtype and shape of an input or output; a free axis without a name is called NAME_axis_INDEX."""
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    shape = [dim.dim_value or dim.dim_param or f"{value.name}_axis_{axis}" for axis, dim in enumerate(tensor.shape.dim)]
    return TensorSpec(str(tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(shape))


def fix_model_axes(model: ModelProto, lengths: Mapping[str, int]) -> None:
    """Fix free axes to these lengths by name; changes `model`."""
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in lengths:
                axis.dim_value = lengths[axis.dim_param]
