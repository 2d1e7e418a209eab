"""A small network of matrix products and a convolution, with its weights in safetensors files, as exported graphs have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.tensor_file import write_safetensors

WIDTH, HIDDEN, CHANNELS = 128, 320, 16
FLOATS = "model.safetensors"
_KINDS = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16}


def write_network(folder: Path, dtype: str) -> dict[str, onnx.ModelProto]:
    """The graphs `step` and `other`; they share the weight `up`, which torch stores as [outputs, inputs]."""
    rng = np.random.default_rng(0)
    shapes = {"up": (HIDDEN, WIDTH), "down": (WIDTH, HIDDEN), "gemm": (WIDTH, WIDTH), "tied": (WIDTH, WIDTH), "small": (WIDTH, 8)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) / np.sqrt(shape[1]) for name, shape in shapes.items()}
    weights["conv"] = rng.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 12
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    write_safetensors(folder / FLOATS, weights, dtype=None if dtype == "F32" else dtype)
    step = _Graph(folder, dtype)
    hidden = step.op("Tanh", step.linear("x", "up"))
    mixed = step.op("Tanh", step.linear(hidden, "down"))
    flat = step.op("Gemm", mixed, step.weight("gemm"), step.const(np.zeros(WIDTH, np.float32)), transB=1)
    tied = step.op("MatMul", flat, step.weight("tied"))
    small = step.op("MatMul", step.op("MatMul", tied, step.weight("small")), step.op("Transpose", step.weight("small")))
    image = step.op("Reshape", small, step.const(np.array([-1, CHANNELS, 8, 1])))
    conv = step.op("Conv", image, step.weight("conv"), pads=[1] * 4)
    row = step.op("ReduceMean", step.weight("tied"), keepdims=1)  # read by more than a product: stays
    step.op("Add", step.op("Reshape", conv, step.const(np.array([-1, WIDTH]))), row, out="y")
    other = _Graph(folder, dtype)
    other.op("Identity", other.linear("x", "up"), out="y")
    return {"step": step.model(WIDTH), "other": other.model(HIDDEN)}


class _Graph:
    def __init__(self, folder: Path, dtype: str) -> None:
        from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors

        self._stored, self._kind = read_stored_tensors(folder / FLOATS), _KINDS[dtype]
        self._nodes, self._tensors = list[Any](), dict[str, Any]()

    def op(self, kind: str, *inputs: str, out: str = "", **settings: Any) -> str:
        name = out or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **settings))
        return name

    def const(self, value: np.ndarray[Any, Any]) -> str:
        name = f"const_{len(self._tensors)}"
        self._tensors[name] = onnx.numpy_helper.from_array(value, name)
        return name

    def weight(self, name: str) -> str:
        if name not in self._tensors:
            stored = self._stored[name]
            tensor = TensorProto(name=name, data_type=self._kind, dims=stored.shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", FLOATS), ("offset", stored.offset), ("length", stored.length)):
                tensor.external_data.add(key=key, value=str(value))
            self._tensors[name] = tensor
            if self._kind != TensorProto.FLOAT:
                self.op("Cast", name, out=f"{name}/float", to=TensorProto.FLOAT)
        return name if self._kind == TensorProto.FLOAT else f"{name}/float"

    def linear(self, x: str, name: str) -> str:
        return self.op("MatMul", x, self.op("Transpose", self.weight(name), perm=[1, 0]))

    def model(self, width: int) -> onnx.ModelProto:
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]) for name, size in (("x", WIDTH), ("y", width))]
        graph = helper.make_graph(self._nodes, "g", values[:1], values[1:], list(self._tensors.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
