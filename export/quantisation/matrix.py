"""Finds the weights of matrix products in a graph whose weights lie in safetensors files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costroute_rt.engines.bundle.safetensors_file import StoredTensor

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_FEWEST_CHANNELS, _FEWEST_VALUES = 16, 1024
"""Smaller weights stay: they save nothing, and the first and last layers of a network are among them."""
_CHAIN = ("Cast", "Transpose")
"""What stands between a stored weight and its use (`export.network.region`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A float weight of a graph that products read."""

    value: str
    """Name of the tensor that the products read, float32."""
    stored: StoredTensor
    """The initialiser that it is made of, with its place in a file."""
    location: str
    """Name of that file, beside the graph."""
    is_transposed: bool
    axis: int
    """Of the output channels, in the matrix that the products read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix that the products read."""
        return self.stored.shape[::-1] if self.is_transposed else self.stored.shape


def find_matrices(model: ModelProto) -> list[Matrix]:
    """The weights of MatMul and Gemm that are worth quantising, in the order of their use.

    A weight that anything else reads too stays as it is, and so does one that is computed. Convolutions stay: on a CPU neither ONNX Runtime
    nor OpenVINO computes them with int8 weights, both make float32 of them when they build.
    """
    chains, uses = _Chains(model), _uses(model)
    found = []
    for value, readers in uses.items():
        axes = {_axis(node, index) for node, index in readers}
        axis = axes.pop()
        matrix = chains.follow(value, axis) if axis is not None and not axes else None
        if matrix is not None and _is_worth_it(matrix):
            found.append(matrix)
    return found


def external_place(tensor: TensorProto) -> tuple[str, int, int] | None:
    """File, offset and length of the numbers of a tensor, None if they are in the graph."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return (entries["location"], int(entries.get("offset", 0)), int(entries["length"])) if "length" in entries else None


def names_read(nodes: Sequence[NodeProto]) -> Iterator[tuple[str, NodeProto, int]]:
    """Each name that a node reads, with the node and the index of the input; -1 for names in its subgraphs."""
    for node in nodes:
        for index, name in enumerate(node.input):
            yield name, node, index
        for attribute in node.attribute:
            graphs: Sequence[Any] = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            for graph in graphs:
                for name, _, _ in names_read(graph.node):
                    yield name, node, -1


class _Chains:
    """The nodes between stored weights and what reads them."""

    def __init__(self, model: ModelProto) -> None:
        self._made = {name: node for node in model.graph.node for name in node.output}
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def follow(self, value: str, axis: int) -> Matrix | None:
        """The matrix of that name, if it is a stored one, cast and transposed at most."""
        name, is_transposed = value, False
        while (node := self._made.get(name)) is not None and node.op_type in _CHAIN:
            if node.op_type == "Transpose":
                if [list(each.ints) for each in node.attribute] not in ([[1, 0]], []):
                    return None
                is_transposed = not is_transposed
            name = node.input[0]
        tensor = self._tensors.get(name)
        place = external_place(tensor) if tensor is not None else None
        dtype = {1: "F32", 10: "F16", 16: "BF16"}.get(tensor.data_type) if tensor is not None else None
        if tensor is None or place is None or dtype is None or len(tensor.dims) != 2:
            return None
        stored = StoredTensor(name=name, dtype=dtype, shape=tuple(tensor.dims), offset=place[1], length=place[2])
        return Matrix(value=value, stored=stored, location=place[0], is_transposed=is_transposed, axis=axis)


def _uses(model: ModelProto) -> dict[str, list[tuple[NodeProto, int]]]:
    """What reads each tensor that some product reads as its second input."""
    readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
    for name, node, index in names_read(model.graph.node):
        readers[name].append((node, index))
    outputs = {value.name for value in model.graph.output}
    return {name: own for name, own in readers.items() if name not in outputs and any(_axis(*each) is not None for each in own)}


def _axis(node: NodeProto, index: int) -> int | None:
    """The axis of the output channels of a product's weight; None for any other use of a tensor."""
    if index != 1 or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Gemm":
        return 0 if any(each.name == "transB" and each.i for each in node.attribute) else 1
    return 1 if node.op_type == "MatMul" else None


def _is_worth_it(matrix: Matrix) -> bool:
    return min(matrix.shape) >= _FEWEST_CHANNELS and math.prod(matrix.shape) >= _FEWEST_VALUES
