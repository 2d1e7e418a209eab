"""Exports a network without its weights: traced with fake tensors, whose initialisers keep the names of the parameters and hold no data.

A full-size SDXL denoiser takes some ten seconds and half a gigabyte. torch's default optimiser stays off: it is not exact.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping

import onnx_ir as ir
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from costroute_rt.engines.bundle.manifest import GraphSpec
from costroute_rt.error import BundleError
from costroute_rt.export.graph.clean import clean
from costroute_rt.export.graph.compose import strip_notes, value_info

_OPSET = 23
"""The first with attention as one operator."""
_LENGTHS = {"batch": 3, "tokens": 11, "height": 64, "width": 128, "image_height": 64, "image_width": 128}
"""Lengths of the free axes in the trace; sides are multiples of what any of the networks divides them by."""
_PARAMETER = "network."
_MOST_INLINE_BYTES = 64 << 10


def export_weightless(make: Callable[[], nn.Module], spec: GraphSpec) -> ModelProto:
    """The graph of a module whose network is its attribute `network`; initialisers are called as the network's parameters.

    make: builds the module; its parameters are never allocated. spec: the inputs, in the order of the module's `forward`, and the outputs.
    An initialiser that is a parameter has external data in no file; `point_weights` says where they are.
    Raises BundleError for what torch cannot export.
    """
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # says that torchvision is missing
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    with warnings.catch_warnings(), mode:
        warnings.simplefilter("ignore")
        module = make().eval()
        example = [_example(port.dtype, port.shape) for port in spec.inputs.values()]
        try:
            program = torch.onnx.export(
                module,
                tuple(example),
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                opset_version=_OPSET,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # the exporter and what it calls have dozens of classes
            problem = f"torch cannot export the network: {type(error).__name__}: {str(error).splitlines()[0][:300]}"
            raise BundleError(None, problem, "use another model; this one has parts that are not supported") from error
    return _to_proto(program.model, dict(module.named_parameters()) | dict(module.named_buffers()), spec)


def _example(dtype: str, shape: tuple[int | str, ...]) -> Tensor:
    return torch.empty([_LENGTHS[axis] if isinstance(axis, str) else axis for axis in shape], dtype=getattr(torch, dtype))


def _to_proto(model: ir.Model, tensors: Mapping[str, Tensor], spec: GraphSpec) -> ModelProto:
    """The model with the parameters as initialisers without data; raises BundleError for large constants that are no parameters.

    tensors: the module's parameters and buffers.
    """
    for name, value in model.graph.initializers.items():
        if name in tensors:
            value.const_value = None
        elif value.const_value is None or value.const_value.nbytes > _MOST_INLINE_BYTES:
            raise BundleError(None, f"its network computes with {name}, which is no parameter", "use another model")
    clean(model)
    parameters = [model.graph.initializers.pop(name) for name in list(model.graph.initializers) if name in tensors]
    for value in parameters:
        value.name = value.name.removeprefix(_PARAMETER)
    proto = ir.to_proto(model)
    strip_notes(proto)
    for value in parameters:
        if value.consumers():
            shape = tensors[_PARAMETER + value.name].shape
            proto.graph.initializer.append(
                TensorProto(name=value.name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
            )
    for field, side in ((proto.graph.input, spec.inputs), (proto.graph.output, spec.outputs)):
        del field[:]
        field.extend(value_info(name, port) for name, port in side.items())
    return proto
