"""Makes the initialisers of an ONNX graph refer to tensors in safetensors files.

A safetensors file consists of a length, a JSON header and the tensors' bytes, so an initialiser can refer to a tensor inside it as external
data. The weights of a component are then stored once, in files that diffusers can read, for any number of graphs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.safetensors_file import ITEM_BYTES, StoredTensor, read_stored_tensors
from costroute_rt.error import BundleError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_PREFIX = "weights/"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReport:
    """How many of a graph's constants were replaced by references."""

    referenced: int
    """Initialisers that now refer to a safetensors file."""
    referenced_bytes: int
    inline_bytes: int
    """Bytes of the constants that stay in the graph."""


def reference_weights(
    model: ModelProto, weights: Sequence[Path], *, base_dir: Path, smallest_values: int = 16, inline_limit_bytes: int = 64 << 10
) -> WeightReport:
    """Replaces float32 initialisers of `model`, in place, by references to equal tensors in `weights`, safetensors files of one folder.

    An initialiser matches a stored tensor with the same values, or with the same values after a transpose (exporters fold the transpose of
    a Linear). Tensors stay float16 or bfloat16 in the file; the graph casts them, and backends fold the cast in a build. The graph must be
    saved in the folder of `weights`.
    base_dir: directory of the external data of `model` as exported. smallest_values: constants with fewer values stay inline.
    Raises BundleError for a constant above inline_limit_bytes that equals no stored tensor.
    """
    from onnx import helper
    from onnx.numpy_helper import to_array

    _hoist_constants(model.graph)
    shelf = _StoredWeights(weights)
    kept: list[TensorProto] = []
    nodes: list[NodeProto] = []
    inline_bytes = referenced = 0
    for tensor in model.graph.initializer:
        values = to_array(tensor, str(base_dir))
        match = shelf.find(values, tensor.name) if values.dtype == np.float32 and values.size >= smallest_values else None
        if match is None:
            _refuse_large(weights[0], tensor.name, values, inline_limit_bytes)
            kept.append(_inline(tensor, values))
            inline_bytes += values.nbytes
            continue
        stored, is_transposed = match
        source = shelf.reference(stored, values.shape[::-1] if is_transposed else values.shape)
        steps = [("Cast", {"to": 1})] + ([("Transpose", {"perm": [1, 0]})] if is_transposed else [])
        for index, (kind, attributes) in enumerate(steps):
            output = tensor.name if index == len(steps) - 1 else f"{_PREFIX}{tensor.name}/{kind}"
            nodes.append(helper.make_node(kind, [source], [output], **attributes))
            source = output
        referenced += 1
    _replace(model.graph, [*shelf.references.values(), *kept], nodes)
    return WeightReport(referenced=referenced, referenced_bytes=sum(shelf.referenced_bytes.values()), inline_bytes=inline_bytes)


class _StoredWeights:
    """Index of the tensors in safetensors files by content."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._by_content: dict[str, dict[str, tuple[StoredTensor, str]]] = {}
        self.references: dict[tuple[str, tuple[int, ...]], TensorProto] = {}
        self.referenced_bytes: dict[str, int] = {}
        for path in paths:
            data = np.memmap(path, dtype=np.uint8, mode="r")
            for stored in read_stored_tensors(path).values():
                if stored.dtype in ITEM_BYTES and stored.length:
                    content = data[stored.offset : stored.offset + stored.length]
                    self._by_content.setdefault(_digest(content, stored.dtype), {})[stored.name] = stored, path.name

    def find(self, values: npt.NDArray[Any], name: str) -> tuple[tuple[StoredTensor, str], bool] | None:
        """The stored tensor with these values, with its file and whether it is transposed; of several, preferably the one called `name`."""
        for is_transposed in (False, True) if values.ndim == 2 else (False,):
            for digest in _digests(values.T if is_transposed else values):
                if found := self._by_content.get(digest):
                    return found.get(name, next(iter(found.values()))), is_transposed
        return None

    def reference(self, found: tuple[StoredTensor, str], shape: tuple[int, ...]) -> str:
        """The name of the initialiser that refers to a stored tensor with `shape`, created at the first call."""
        from onnx import TensorProto

        stored, location = found
        tensor = self.references.get((stored.name, shape))
        if tensor is None:
            view = "" if shape == stored.shape else "/" + "x".join(map(str, shape))
            kind = {"F16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "F32": TensorProto.FLOAT}[stored.dtype]
            tensor = TensorProto(name=f"{_PREFIX}{stored.name}{view}", data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", location), ("offset", stored.offset), ("length", stored.length)):
                tensor.external_data.add(key=key, value=str(value))
            self.references[stored.name, shape] = tensor
            self.referenced_bytes[stored.name] = stored.length
        return str(tensor.name)


def _digests(values: npt.NDArray[Any]) -> Iterator[str]:
    """The digests under which float32 values may be stored: as float16 or bfloat16 if that is lossless, then as float32."""
    values = np.ascontiguousarray(values).astype("<f4", copy=False)
    with np.errstate(over="ignore"):
        halved = values.astype("<f2")
    if halved.astype("<f4").tobytes() == values.tobytes():
        yield _digest(halved, "F16")
    bits = values.view("<u4")
    if not (bits & 0xFFFF).any():  # a bfloat16 is the upper half of a float32
        yield _digest((bits >> 16).astype("<u2"), "BF16")
    yield _digest(values, "F32")


def _digest(values: npt.NDArray[Any], dtype: str) -> str:
    return dtype + hashlib.sha1(values.tobytes(), usedforsecurity=False).hexdigest()


def _hoist_constants(graph: GraphProto) -> None:
    """Turns Constant nodes into initialisers, so that large ones are matched like other weights."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _inline(tensor: TensorProto, values: npt.NDArray[Any]) -> TensorProto:
    from onnx import TensorProto
    from onnx.numpy_helper import from_array

    return from_array(values, tensor.name) if tensor.data_location == TensorProto.EXTERNAL else tensor


def _refuse_large(weights: Path, name: str, values: npt.NDArray[Any], limit_bytes: int) -> None:
    if values.nbytes > limit_bytes:
        problem = f"the graph's constant {name} ({values.dtype}{list(values.shape)}, {values.nbytes} bytes) equals no tensor in it"
        raise BundleError(weights, problem, "export the graph from the rounded weights in this file")


def _replace(graph: GraphProto, tensors: list[TensorProto], first_nodes: list[NodeProto]) -> None:
    tensors, nodes = list(tensors), [*first_nodes, *graph.node]
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
