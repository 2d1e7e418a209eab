"""Graphs of a network with int8 weights, from those with its float weights.

Each weight of a matrix product becomes two tensors in a new safetensors file, int8 and a float32 scale per output channel, and a
`DequantizeLinear` in front of the product: a standard operator, which every backend reads. All other weights stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.safetensors_file import StoredTensor, read_stored_tensors
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.tensor.number import read_tensor
from costroute_rt.export.checkpoint.tensor.writer import NewTensor, write_tensors
from costroute_rt.export.quantisation.matrix import Matrix, external_place, find_matrices, names_read
from costroute_rt.export.quantisation.number import quantise

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_NUMBERS, _SCALE = "/int8", "/scale"
"""Ends of the names of a matrix's two tensors, which are written in alphabetical order."""
_OLDEST_OPSET = 13
"""The first whose `DequantizeLinear` has a scale per channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """What `quantise_graphs` made."""

    graphs: Mapping[str, ModelProto]
    """By use, to be saved beside the files of weights."""
    weights: tuple[str, ...]
    """Names of the files that the graphs refer to."""
    weights_bytes: int
    """Of the tensors in them that the graphs use."""
    matrices: int
    """Weights that are int8 now."""


def quantise_graphs(
    graphs: Mapping[str, ModelProto], folder: Path, file: str, on_tensor: Callable[[str], None] = lambda _: None
) -> Quantised:
    """Graphs with the weights of their matrix products as int8, which are written to `file` in `folder`, where the float weights are.

    graphs: by use, all of one network; they stay as they are. One tensor at a time is in memory.
    on_tensor: called with the name of each tensor before it is written; what it raises ends the work.
    Raises BundleError for a network without such weights and for weights that cannot be read, OutputError if they cannot be written.
    """
    found = {use: find_matrices(model) if _opset(model) >= _OLDEST_OPSET else [] for use, model in graphs.items()}
    names = _names(matrix for matrices in found.values() for matrix in matrices)
    if not names:
        problem = "its network has no matrix product that is large enough for int8 weights"
        raise BundleError(folder, problem, "use it without int8 weights")
    write_tensors(folder / file, _new_tensors(names, folder), on_tensor)
    stored = read_stored_tensors(folder / file)
    made = {}
    for use, model in graphs.items():
        made[use] = _rewrite(model, {each.value: (names[each], each.axis) for each in found[use]}, file, stored)
    places = {place for model in made.values() for tensor in model.graph.initializer if (place := external_place(tensor)) is not None}
    return Quantised(
        graphs=made,
        weights=tuple(sorted({location for location, _, _ in places})),
        weights_bytes=sum(length for _, _, length in places),
        matrices=len(set(names.values())),
    )


def _opset(model: ModelProto) -> int:
    return max((int(each.version) for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)


def _names(matrices: Iterable[Matrix]) -> dict[Matrix, str]:
    """A name for the tensors of each matrix; several graphs may have the same matrix, and several files tensors of the same name."""
    known: dict[tuple[Any, ...], str] = {}
    names = {}
    for matrix in matrices:
        same = matrix.location, matrix.stored.offset, matrix.shape, matrix.is_transposed, matrix.axis
        name, number = matrix.stored.name, 2
        while same not in known and name in known.values():
            name, number = f"{matrix.stored.name}/{number}", number + 1
        names[matrix] = known.setdefault(same, name)
    return names


def _new_tensors(names: Mapping[Matrix, str], folder: Path) -> dict[str, NewTensor]:
    scales: dict[str, npt.NDArray[np.float32]] = {}
    tensors = {}
    for matrix, name in names.items():
        channels = (matrix.shape[matrix.axis],)
        tensors[name + _NUMBERS] = NewTensor(dtype="I8", shape=matrix.shape, blocks=partial(_numbers, matrix, folder, name, scales))
        tensors[name + _SCALE] = NewTensor(dtype="F32", shape=channels, blocks=partial(_scale, name, scales))
    return tensors


def _numbers(matrix: Matrix, folder: Path, name: str, scales: dict[str, npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[Any]]:
    """The int8 numbers of one matrix; its scales are kept for the tensor that follows."""
    values = read_tensor(folder / matrix.location, matrix.stored)
    numbers, scales[name] = quantise(values.T if matrix.is_transposed else values, matrix.axis)
    yield np.ascontiguousarray(numbers)


def _scale(name: str, scales: dict[str, npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[Any]]:
    yield scales.pop(name)


def _rewrite(model: ModelProto, matrices: Mapping[str, tuple[str, int]], file: str, stored: Mapping[str, StoredTensor]) -> ModelProto:
    """A copy of the graph where int8 tensors take the place of float ones.

    matrices: by the name of the tensor that the products read, the name of its int8 tensors and the axis of its channels.
    """
    from onnx import ModelProto
    from onnx.helper import make_node

    copy = ModelProto()
    copy.CopyFrom(model)
    first, tensors = list[Any](), dict[str, Any]()
    for value, (name, axis) in matrices.items():
        for end in (_NUMBERS, _SCALE):
            tensors[name + end] = _refer(stored[name + end], file)
        first.append(make_node("DequantizeLinear", [name + _NUMBERS, name + _SCALE], [value], axis=axis))
    nodes = [*first, *(node for node in model.graph.node if matrices.keys().isdisjoint(node.output))]
    floats = [tensor for tensor in model.graph.initializer if tensor.name not in matrices]
    nodes, floats = _needed(nodes, [*floats, *tensors.values()], {value.name for value in model.graph.output})
    for field, values in ((copy.graph.node, nodes), (copy.graph.initializer, floats)):
        del field[:]
        field.extend(values)
    return copy


def _needed(nodes: list[NodeProto], tensors: list[TensorProto], outputs: set[str]) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes and initialisers that outputs depend on."""
    needed, kept = set(outputs), list[Any]()
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            needed.update(name for name, _, _ in names_read([node]))
            kept.append(node)
    return kept[::-1], [tensor for tensor in tensors if tensor.name in needed]


def _refer(tensor: StoredTensor, location: str) -> TensorProto:
    from onnx import TensorProto

    kind = {"I8": TensorProto.INT8, "F32": TensorProto.FLOAT}[tensor.dtype]
    made = TensorProto(name=tensor.name, data_type=kind, dims=tensor.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", tensor.offset), ("length", tensor.length)):
        made.external_data.add(key=key, value=str(value))
    return made
