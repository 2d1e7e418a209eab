"""Reads the inputs and outputs of ONNX files without the `onnx` package, which the runtime does not need."""

from __future__ import annotations

from pathlib import Path

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.engines.bundle.onnx_schema import AXIS, BITS, GRAPH, MODEL, SHAPE, TENSOR_TYPE, TYPE, VALUE
from costroute_rt.engines.bundle.protobuf import Reader, Span, part, signed
from costroute_rt.regular_file import read_regular

LARGEST_FILE_BYTES = 256 << 20
"""Without weights, which belong into safetensors files, graphs have a few megabytes."""
MOST_FIELDS = 500_000
"""Fifteen to a node: the largest known graphs have some 20,000 nodes."""
RELU = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""An ONNX model of one node, y = Relu(x), x float32[1]."""


def read_graph_spec(path: Path) -> GraphSpec:
    """Inputs and outputs of an ONNX file, in its order; a free axis without a name is called `?`.

    Raises OSError, ValueError if it is not ONNX.
    """
    data = read_regular(path, LARGEST_FILE_BYTES)
    reader = Reader(data, MOST_FIELDS)
    sides: dict[int, dict[str, TensorSpec]] = {11: {}, 12: {}}
    graphs = 0
    for number, graph in reader.fields((0, len(data)), MODEL):
        graphs += number == 7
        for key, value in reader.fields(part(graph), GRAPH) if number == 7 else ():
            if key in sides:
                name, spec = read_value(reader, part(value))
                sides[key][name] = spec
    if not graphs:
        raise ValueError("it is not ONNX")
    return GraphSpec(sides[11], sides[12])


def read_value(reader: Reader, span: Span) -> tuple[str, TensorSpec]:
    """Name, dtype and shape of an input or output."""
    name, dtype, shape = "", "unknown", list[int | str]()
    for number, value in reader.fields(span, VALUE):
        if number == 1:
            name = reader.text(value)
        elif number == 2:
            for tensor in (inner for key, inner in reader.fields(part(value), TYPE) if key == 1):
                for key, inner in reader.fields(part(tensor), TENSOR_TYPE):
                    if isinstance(inner, int):
                        dtype = BITS.get(inner, ("unknown", 0))[0]
                    elif key == 2:
                        shape = [_axis(reader, part(axis)) for _, axis in reader.fields(inner, SHAPE)]
    return name, TensorSpec(dtype, tuple(shape))


def _axis(reader: Reader, span: Span) -> int | str:
    found = dict(reader.fields(span, AXIS))
    if 1 in found and 2 in found:
        raise ValueError("an axis has both a length and a name: it is not ONNX")
    length = found.get(1)
    if isinstance(length, int):
        return signed(length)
    return reader.text(found[2]) if 2 in found else "?"
