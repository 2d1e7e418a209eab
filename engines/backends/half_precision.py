"""Rewrites a float32 graph so that the bulk of it computes in float16, for libraries that take precision from the graph.

Inputs and outputs keep their types, with casts at the edges. Convolutions and matrix products compute in float16, and so does what lies
between them; norms compute in float32 and give float16 back. Sums, powers and trigonometry, and whatever is mixed with float32 data (a row
of a step table, the latent, a timestep, a mask beyond float16's range) stay in float32: the linear rule of a step keeps every bit of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

RULES = 1
"""Raised with every change to how graphs are rewritten, here or around it in a backend, so that engines are built again."""
_PRODUCTS = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
_NORMS = frozenset({"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"})
_PRECISE = frozenset({"Cos", "CumSum", "Exp", "Log", "LpNormalization", "Pow", "Range", "Reciprocal", "Sin", "Sqrt", "Tan"})
_SHAPES = frozenset({"Shape", "Size"})
_AS_DECLARED = frozenset({"CastLike", "DequantizeLinear", "QuantizeLinear"})
_NUMBERS = {"Resize": (1, 2)}
"""Inputs that are float32 whatever the data's type is."""
_LARGEST, _SMALLEST = float(np.finfo(np.float16).max), float(np.finfo(np.float16).smallest_normal)


class _Kind(Enum):
    """What a tensor that is float32 in the source is computed in."""

    FREE = 0
    """A constant, or made of constants and shapes alone: it takes the type of what it meets."""
    HALF = 1
    SINGLE = 2


def to_float16(model: ModelProto) -> ModelProto:
    """A copy of a float32 `model` that computes in float16 where that is safe; weights in other files are neither read nor changed."""
    return _Conversion(model).convert()


class _Conversion:
    """Goes through the nodes in order. A tensor is called `x` in float32 and `x/half` in float16; each form is made when it is needed."""

    def __init__(self, model: ModelProto) -> None:
        from onnx import ModelProto, TensorProto
        from onnx.shape_inference import infer_shapes

        self._single, self._half = TensorProto.FLOAT, TensorProto.FLOAT16
        self._model = ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self._types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for value in [*graph.input, *graph.output, *infer_shapes(model).graph.value_info]:
            self._types.setdefault(value.name, value.type.tensor_type.elem_type)
        self._fixed = {tensor.name for tensor in graph.initializer}
        """Tensors of any type that do not depend on what the graph is fed."""
        self._kinds = {tensor.name: self._kind_of_constant(tensor) for tensor in graph.initializer if tensor.data_type == self._single}
        self._kinds |= {value.name: _Kind.SINGLE for value in graph.input if value.name not in self._fixed and self._is_single(value.name)}
        self._stored: dict[str, NodeProto] = {}
        """Casts of weights stored in float16, by the float32 name."""
        self._made = {*self._fixed, *(value.name for value in graph.input)}
        self._nodes: list[NodeProto] = []

    def convert(self) -> ModelProto:
        graph = self._model.graph
        for node in graph.node:
            self._convert(node)
        for value in graph.output:
            if self._is_single(value.name):
                self._name(value.name, half=False)
        nodes = list(self._nodes)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        return self._model

    def _convert(self, node: NodeProto) -> None:
        given = [name for name in node.input if name]
        singles = [name for index, name in enumerate(node.input) if self._is_single(name) and index not in _NUMBERS.get(node.op_type, ())]
        is_fixed = node.op_type in _SHAPES or self._fixed.issuperset(given)
        if is_fixed:
            self._fixed.update(node.output)
        if node.op_type == "Cast" and self._types.get(node.input[0]) == self._half and is_fixed and self._is_single(node.output[0]):
            self._stored[node.output[0]], self._kinds[node.output[0]] = node, _Kind.FREE
        elif self._must_stay(node):
            self._emit(node, half=False, kind=_Kind.SINGLE)
        elif not singles:
            self._emit(node, half=False, kind=self._kind_of_source(node, is_fixed))
        else:
            self._emit(node, *self._choose(node.op_type, [self._kinds[name] for name in singles], is_fixed))

    def _must_stay(self, node: NodeProto) -> bool:
        """Whether its types are to be left as declared: foreign or unknown ones, subgraphs, what is float16 already."""
        has_graph = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        is_known = node.domain in ("", "ai.onnx") and all(name in self._types for name in node.output if name)
        is_half = node.op_type != "Cast" and any(self._types.get(name) == self._half for name in node.input)
        return has_graph or not is_known or is_half or node.op_type in _AS_DECLARED

    def _choose(self, op: str, kinds: list[_Kind], is_fixed: bool) -> tuple[bool, _Kind]:
        """Whether it computes in float16, and the kind of its outputs."""
        if op in _SHAPES:
            return kinds[0] is _Kind.HALF, _Kind.FREE
        if is_fixed and _Kind.SINGLE not in kinds:
            return False, _Kind.FREE
        if op in _PRODUCTS:
            return True, _Kind.HALF
        if op in _NORMS:
            return False, _Kind.SINGLE if kinds[0] is _Kind.SINGLE else _Kind.HALF
        is_half = op not in _PRECISE and not op.startswith("Reduce") and _Kind.SINGLE not in kinds
        return is_half, _Kind.HALF if is_half else _Kind.SINGLE

    def _emit(self, node: NodeProto, half: bool, kind: _Kind) -> None:
        """Adds the node with its float32 tensors in the type chosen."""
        from onnx import NodeProto

        for name in _names_inside(node):
            if self._is_single(name):
                self._name(name, half=False)
        numbers = _NUMBERS.get(node.op_type, ())
        inputs = [self._name(name, half and i not in numbers) if self._is_single(name) else name for i, name in enumerate(node.input)]
        outputs = [f"{name}/half" if half and self._is_single(name) else name for name in node.output]
        self._kinds |= {name: kind for name in node.output if self._is_single(name)}
        self._made.update(outputs)
        copy = NodeProto()
        copy.CopyFrom(node)
        if node.op_type == "Cast" and self._is_single(node.input[0]) and self._is_single(node.output[0]):
            copy.op_type = "Identity"
            del copy.attribute[:]
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(outputs)
        self._nodes.append(copy)

    def _name(self, name: str, half: bool) -> str:
        """The tensor in the wanted type, cast where needed."""
        from onnx.helper import make_node

        wanted, other = (f"{name}/half", name) if half else (name, f"{name}/half")
        if wanted in self._made:
            return wanted
        cast = self._stored.get(name)
        if cast is not None:
            if half:
                return str(cast.input[0])
            self._nodes.append(cast)
        else:
            self._nodes.append(make_node("Cast", [other], [wanted], to=self._half if half else self._single))
        self._made.add(wanted)
        return wanted

    def _is_single(self, name: str) -> bool:
        return self._types.get(name) == self._single

    def _kind_of_source(self, node: NodeProto, is_fixed: bool) -> _Kind:
        """Of what a node makes from no float32 tensor: a constant, a cast."""
        values = [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        if any(tensor.data_type == self._single and self._kind_of_constant(tensor) is _Kind.SINGLE for tensor in values):
            return _Kind.SINGLE
        return _Kind.FREE if is_fixed else _Kind.SINGLE

    def _kind_of_constant(self, tensor: TensorProto) -> _Kind:
        """SINGLE where float16 cannot hold it: a mask's -3e38, the 1e-12 that keeps a divisor from zero."""
        from onnx.external_data_helper import uses_external_data
        from onnx.numpy_helper import to_array

        if uses_external_data(tensor):
            return _Kind.FREE
        sizes = np.abs(to_array(tensor))
        is_tiny = sizes.size == 1 and 0 < float(sizes.max()) < _SMALLEST
        return _Kind.SINGLE if is_tiny or float(sizes.max(initial=0)) > _LARGEST else _Kind.FREE


def _names_inside(node: NodeProto) -> Iterator[str]:
    """Names that the subgraphs of a node may take from outside."""
    graphs: Iterable[Any] = (each for attribute in node.attribute for each in [attribute.g, *attribute.graphs])
    for graph in graphs:
        for inner in graph.node:
            yield from inner.input
            yield from _names_inside(inner)
