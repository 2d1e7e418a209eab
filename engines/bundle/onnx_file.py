"""Reads the external data locations, inputs and outputs of ONNX files without the `onnx` package, which the runtime does not need.

Only the fields needed for this are decoded; field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_FUNCTION_NODE, _NODE_ATTRIBUTE = 7, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_EXTERNAL, _SPARSE_TENSORS = 13, (1, 2)
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_DTYPE, _TENSOR_SHAPE, _SHAPE_AXIS = 1, 2, 1, 1, 2, 1
_AXIS_LENGTH, _AXIS_NAME = 1, 2
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 16: "bfloat16"}
RELU = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""An ONNX model of one node, y = Relu(x), x float32[1]."""


def read_external_locations(path: Path) -> set[str]:
    """Locations of an ONNX file's external data, as written in the file; raises ValueError if it is not an ONNX file."""
    external: set[str] = set()
    graphs = 0
    try:
        for number, value in _fields(memoryview(path.read_bytes())):
            if number == _MODEL_GRAPH:
                graphs += 1
                _walk_graph(_part(value), external)
            elif number == _MODEL_FUNCTIONS:
                _walk_nodes(_part(value), _FUNCTION_NODE, external)
    except (IndexError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("it is cut short or not ONNX") from error
    if graphs != 1:
        raise ValueError("it is not ONNX" if not graphs else "it holds more than one graph")
    return external


def read_graph_spec(path: Path) -> GraphSpec:
    """Inputs and outputs of an ONNX file, in its order; a free axis without a name is called `?`. Raises ValueError if it is not ONNX."""
    try:
        graph = next(_members(memoryview(path.read_bytes()), _MODEL_GRAPH))
        inputs, outputs = ([_value(each) for each in _members(graph, side)] for side in (_GRAPH_INPUT, _GRAPH_OUTPUT))
    except (IndexError, UnicodeDecodeError, StopIteration) as error:
        raise ValueError("it is cut short or not ONNX") from error
    return GraphSpec(dict(inputs), dict(outputs))


def _value(data: memoryview) -> tuple[str, TensorSpec]:
    """Name, dtype and shape of an input or output."""
    name, dtype, shape = "", "unknown", list[int | str]()
    for number, value in _fields(data):
        if number == _VALUE_NAME:
            name = str(_part(value), "utf-8")
        elif number == _VALUE_TYPE:
            for key, part in (field for tensor in _members(_part(value), _TYPE_TENSOR) for field in _fields(tensor)):
                if key == _TENSOR_DTYPE and isinstance(part, int):
                    dtype = _DTYPES.get(part, "unknown")
                elif key == _TENSOR_SHAPE:
                    shape = [_axis(axis) for axis in _members(_part(part), _SHAPE_AXIS)]
    return name, TensorSpec(dtype, tuple(shape))


def _axis(data: memoryview) -> int | str:
    for number, value in _fields(data):
        if number == _AXIS_LENGTH and isinstance(value, int):
            return value
        if number == _AXIS_NAME:
            return str(_part(value), "utf-8")
    return "?"


def _members(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """The submessages of a message with one field number."""
    return (_part(value) for number, value in _fields(data) if number == wanted)


def _walk_graph(data: memoryview, external: set[str]) -> None:
    for number, value in _fields(data):
        if number == _GRAPH_INITIALIZER:
            external.update(_locations(_part(value)))
        elif number == _GRAPH_SPARSE:
            for part, inner in _fields(_part(value)):
                if part in _SPARSE_TENSORS:
                    external.update(_locations(_part(inner)))
    _walk_nodes(data, _GRAPH_NODE, external)


def _walk_nodes(data: memoryview, field: int, external: set[str]) -> None:
    for number, value in _fields(data):
        if number == field:
            for part, inner in _fields(_part(value)):
                if part == _NODE_ATTRIBUTE:
                    _walk_attribute(_part(inner), external)


def _walk_attribute(data: memoryview, external: set[str]) -> None:
    for number, value in _fields(data):
        if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            external.update(_locations(_part(value)))
        elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            _walk_graph(_part(value), external)


def _locations(tensor: memoryview) -> Iterator[str]:
    for number, value in _fields(tensor):
        if number == _TENSOR_EXTERNAL:
            entry = {key: str(_part(part), "utf-8") for key, part in _fields(_part(value))}
            if entry.get(_ENTRY_KEY) == "location":
                yield entry.get(_ENTRY_VALUE, "")


def _part(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a field has the wrong type: it is not ONNX")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each protobuf field: its number, and its integer or its bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        size, at = (_varint(data, at)) if kind == _BYTES else ({_FIXED64: 8, _FIXED32: 4}.get(kind, -1), at)
        if size < 0 or at + size > len(data):
            raise ValueError("it is cut short or not ONNX")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long: it is not ONNX")
