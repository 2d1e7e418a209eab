"""The messages of ONNX files that may be in a bundle, with the field numbers of onnx.proto3; what is missing here is refused."""

from __future__ import annotations

from costroute_rt.engines.bundle.protobuf import BYTES, FIXED32, FIXED64, PACKABLE, REPEATED, VARINT, Schema

MANY = BYTES | REPEATED
_NUMBERS = VARINT | REPEATED | PACKABLE

ENTRY = Schema("StringStringEntryProto", {1: BYTES, 2: BYTES})
OPSET = Schema("OperatorSetIdProto", {1: BYTES, 2: VARINT})
AXIS = Schema("Dimension", {1: VARINT, 2: BYTES, 3: BYTES})
SHAPE = Schema("TensorShapeProto", {1: MANY}, {1: AXIS})
TENSOR_TYPE = Schema("Tensor", {1: VARINT, 2: BYTES}, {2: SHAPE})
_NO_TENSOR = {4: "a sequence", 5: "a map", 7: "an opaque value", 8: "a sparse tensor", 9: "an optional value"}
TYPE = Schema("TypeProto", {1: BYTES, 6: BYTES}, {1: TENSOR_TYPE}, _NO_TENSOR)
VALUE = Schema("ValueInfoProto", {1: BYTES, 2: BYTES, 3: BYTES, 4: MANY}, {2: TYPE, 4: ENTRY})
ANNOTATION = Schema("TensorAnnotation", {1: BYTES, 2: MANY}, {2: ENTRY})
TENSOR = Schema(
    "TensorProto",
    {
        1: _NUMBERS, 2: VARINT, 4: FIXED32 | REPEATED | PACKABLE, 5: _NUMBERS, 7: _NUMBERS, 8: BYTES, 9: BYTES,
        10: FIXED64 | REPEATED | PACKABLE, 11: _NUMBERS, 12: BYTES, 13: MANY, 14: VARINT, 16: MANY,
    },
    {13: ENTRY, 16: ENTRY},
    {3: "a tensor in segments", 6: "a tensor of texts"},
)  # fmt: skip
ATTRIBUTE = Schema(
    "AttributeProto",
    {
        1: BYTES, 2: FIXED32, 3: VARINT, 4: BYTES, 5: BYTES, 6: BYTES, 7: FIXED32 | REPEATED | PACKABLE, 8: _NUMBERS, 9: MANY,
        10: MANY, 11: MANY, 13: BYTES, 14: BYTES, 15: MANY, 20: VARINT,
    },
    {14: TYPE, 15: TYPE},
    {21: "a reference to a function's attribute", 22: "a sparse tensor", 23: "sparse tensors"},
)  # fmt: skip
NODE = Schema(
    "NodeProto",
    {1: MANY, 2: MANY, 3: BYTES, 4: BYTES, 5: MANY, 6: BYTES, 7: BYTES, 8: BYTES, 9: MANY},
    {9: ENTRY},
    {10: "settings for several devices"},
)
GRAPH = Schema(
    "GraphProto",
    {1: MANY, 2: BYTES, 5: MANY, 10: BYTES, 11: MANY, 12: MANY, 13: MANY, 14: MANY, 16: MANY},
    {11: VALUE, 12: VALUE, 13: VALUE, 14: ANNOTATION, 16: ENTRY},
    {15: "sparse initializers"},
)
MODEL = Schema(
    "ModelProto",
    {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: MANY, 14: MANY},
    {8: OPSET, 14: ENTRY},
    {20: "training graphs", 25: "functions of its own", 26: "settings for several devices"},
)

BITS = {
    1: ("float32", 32), 2: ("uint8", 8), 3: ("int8", 8), 4: ("uint16", 16), 5: ("int16", 16), 6: ("int32", 32), 7: ("int64", 64),
    9: ("bool", 8), 10: ("float16", 16), 11: ("float64", 64), 12: ("uint32", 32), 13: ("uint64", 64), 16: ("bfloat16", 16),
    17: ("float8_e4m3fn", 8), 18: ("float8_e4m3fnuz", 8), 19: ("float8_e5m2", 8), 20: ("float8_e5m2fnuz", 8), 21: ("uint4", 4),
    22: ("int4", 4),
}  # fmt: skip
"""Name and bits of the numbers that a tensor may hold, by TensorProto.DataType."""
