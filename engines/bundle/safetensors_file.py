"""ONNX graphs that keep their weights in a safetensors file.

A safetensors file is a length, a JSON header and the tensors' bytes, so an ONNX initialiser can point at a tensor inside it as external
data. The weights of a component then exist once, in the file diffusers itself reads, however many graphs use them.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.error import BundleError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_MAX_HEADER_BYTES = 100 << 20
_ITEM_BYTES = {"F16": 2, "F32": 4}
"""The kinds of tensor a graph may point at."""
_EXPORT_AGAIN = "export the checkpoint again"
_PREFIX = "weights/"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies in a safetensors file."""

    name: str
    dtype: str
    """As safetensors writes it: F16, F32, I64 ..."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReport:
    """How a graph's constants were split."""

    referenced: int
    """Initialisers that now point into the safetensors file."""
    referenced_bytes: int
    inline_bytes: int
    """Bytes that matched nothing and stay in the graph."""


def read_stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The header of a safetensors file; raises BundleError where it is not one or points outside itself."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if header_bytes > min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError(f"a header of {header_bytes} bytes")
            header = json.loads(file.read(header_bytes))
        header.pop("__metadata__", None)
        start = 8 + header_bytes
        return {name: _stored_tensor(name, entry, start, size) for name, entry in header.items()}
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(path, f"it is not a safetensors file: {error}", _EXPORT_AGAIN) from error


def _stored_tensor(name: str, entry: Mapping[str, Any], start: int, file_bytes: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not 0 <= begin <= end <= file_bytes - start:
        raise ValueError(f"tensor {name} lies outside the file")
    item_bytes = _ITEM_BYTES.get(entry["dtype"])
    if item_bytes is not None and math.prod(shape) * item_bytes != end - begin:
        raise ValueError(f"tensor {name} has {end - begin} bytes for shape {shape}")
    return StoredTensor(name=name, dtype=entry["dtype"], shape=shape, offset=start + begin, length=end - begin)


def reference_weights(
    model: ModelProto, weights: Path, *, base_dir: Path, smallest_values: int = 16, inline_limit_bytes: int = 64 << 10
) -> WeightReport:
    """Points the float32 initialisers of `model` (changed in place) at equal tensors in `weights`, a safetensors file.

    An initialiser matches a stored tensor of the same bytes, or of the same bytes once transposed (exporters fold a Linear's transpose).
    float16 stays float16 in the file; the graph casts it, which a backend folds when it builds. The graph must be saved beside `weights`.
    base_dir: where the external data of `model` as exported lie. smallest_values: shorter constants stay inline without a look.
    Raises BundleError where a constant above inline_limit_bytes matches nothing.
    """
    from onnx import helper
    from onnx.numpy_helper import to_array

    _hoist_constants(model.graph)
    shelf = _Shelf(weights)
    kept: list[TensorProto] = []
    nodes: list[NodeProto] = []
    inline_bytes = referenced = 0
    for tensor in model.graph.initializer:
        values = to_array(tensor, str(base_dir))
        match = shelf.find(values, tensor.name) if values.dtype == np.float32 and values.size >= smallest_values else None
        if match is None:
            _refuse_large(weights, tensor.name, values, inline_limit_bytes)
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


class _Shelf:
    """The tensors of one safetensors file, found by content."""

    def __init__(self, path: Path) -> None:
        self._location = path.name
        self._by_content: dict[str, dict[str, StoredTensor]] = {}
        self.references: dict[tuple[str, tuple[int, ...]], TensorProto] = {}
        self.referenced_bytes: dict[str, int] = {}
        data = np.memmap(path, dtype=np.uint8, mode="r")
        for stored in read_stored_tensors(path).values():
            if stored.dtype in _ITEM_BYTES and stored.length:
                content = data[stored.offset : stored.offset + stored.length]
                self._by_content.setdefault(_digest(content, stored.dtype), {})[stored.name] = stored

    def find(self, values: npt.NDArray[Any], name: str) -> tuple[StoredTensor, bool] | None:
        """The stored tensor with these values, the one called `name` where several have them, and whether it is transposed."""
        for is_transposed in (False, True) if values.ndim == 2 else (False,):
            for digest in _digests(values.T if is_transposed else values):
                if found := self._by_content.get(digest):
                    return found.get(name, next(iter(found.values()))), is_transposed
        return None

    def reference(self, stored: StoredTensor, shape: tuple[int, ...]) -> str:
        """The name of the initialiser that points at a stored tensor, seen with `shape`; made the first time it is asked for."""
        from onnx import TensorProto

        tensor = self.references.get((stored.name, shape))
        if tensor is None:
            view = "" if shape == stored.shape else "/" + "x".join(map(str, shape))
            kind = TensorProto.FLOAT16 if stored.dtype == "F16" else TensorProto.FLOAT
            tensor = TensorProto(name=f"{_PREFIX}{stored.name}{view}", data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", self._location), ("offset", stored.offset), ("length", stored.length)):
                tensor.external_data.add(key=key, value=str(value))
            self.references[stored.name, shape] = tensor
            self.referenced_bytes[stored.name] = stored.length
        return str(tensor.name)


def _digests(values: npt.NDArray[Any]) -> Iterator[str]:
    """The digests under which float32 values may be stored: as float16 where that loses nothing, then as they are."""
    values = np.ascontiguousarray(values)
    with np.errstate(over="ignore"):
        halved = values.astype("<f2")
    if halved.astype("<f4").tobytes() == values.tobytes():
        yield _digest(halved, "F16")
    yield _digest(values.astype("<f4", copy=False), "F32")


def _digest(values: npt.NDArray[Any], dtype: str) -> str:
    return dtype + hashlib.sha1(values.tobytes(), usedforsecurity=False).hexdigest()


def _hoist_constants(graph: GraphProto) -> None:
    """Turns Constant nodes into initialisers, so that a large one is found like any other weight."""
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
        raise BundleError(weights, problem, "export the graph from the weights in this file, rounded as they are there")


def _replace(graph: GraphProto, tensors: list[TensorProto], first_nodes: list[NodeProto]) -> None:
    tensors, nodes = list(tensors), [*first_nodes, *graph.node]
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
