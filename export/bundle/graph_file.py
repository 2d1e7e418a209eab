"""Writes the graphs of a component beside its weights, and describes them for the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from costroute_rt.engines.bundle.manifest import TEXT_TOKENS
from costroute_rt.error import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto

_TOKENS = "tokens"


def write_graph(model: ModelProto, path: Path) -> None:
    """Write a graph and check it, shapes included; raises BundleError if it is not valid ONNX, OSError if it cannot be written."""
    import onnx

    try:
        onnx.checker.check_model(_without_weights(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        problem = f"the graph is not valid: {' '.join(str(error).split())[:300]}"
        raise BundleError(path, problem, "this model cannot be exported") from error
    path.write_bytes(model.SerializeToString(deterministic=True))


def name_text_tokens(model: ModelProto) -> None:
    """Name the axis of tokens of a denoiser's graph as graphs have it that take prompts of several chunks; changes `model`."""
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == _TOKENS:
                axis.dim_param = TEXT_TOKENS


def _without_weights(model: ModelProto) -> ModelProto:
    """The graph with its external tensors as inputs: the checker refuses files with several names (hard links), as weights may be."""
    from onnx import ModelProto
    from onnx.helper import make_tensor_value_info

    probe = ModelProto()
    probe.CopyFrom(model)
    tensors = list(probe.graph.initializer)
    del probe.graph.initializer[:]
    probe.graph.initializer.extend(tensor for tensor in tensors if not tensor.external_data)
    external = [tensor for tensor in tensors if tensor.external_data]
    probe.graph.input.extend(make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in external)
    return probe
