"""Attention as the operator that ONNX Runtime computes in blocks, without a matrix of all tokens by all tokens.

Graphs of bundles have the standard operator `Attention` (opset 23). For 2 x 4096 tokens of 8 heads, ONNX Runtime 1.32 needs 2.1 GB and
908 ms for it on two cores, and 0.1 GB and 700 ms for its own `MultiHeadAttention`. The file is rewritten without the `onnx` package, which
a build does not need otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from costroute_rt.engines.bundle.onnx_file import MOST_FIELDS
from costroute_rt.engines.bundle.onnx_schema import ATTRIBUTE, GRAPH, MODEL, NODE
from costroute_rt.engines.bundle.protobuf import Reader, Span, part

_DOMAIN = "com.microsoft"
_STANDARD = ("", "ai.onnx")
_KNOWN = frozenset({"q_num_heads", "kv_num_heads", "scale", "is_causal"})
_INPUTS = 3
"""Query, key and value; with a mask or with past keys the operator stays."""
_GRAPH, _OPSET = 7, 8
_NODE = 1
_INPUT, _OUTPUT, _KIND, _ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_NAME, _WHOLE, _TYPE, _IS_WHOLE = 1, 3, 20, 2


def use_multi_head_attention(data: bytes) -> bytes | None:
    """An ONNX file whose attention operators are ONNX Runtime's; None if it has none. Raises ValueError for what is not ONNX."""
    reader, changed, count = Reader(data, MOST_FIELDS), bytearray(), 0
    for number, value in reader.fields((0, len(data)), MODEL):
        if number == _GRAPH:
            graph, found = _rewrite_graph(reader, part(value))
            changed += _field(number, graph)
            count += found
        else:
            changed += _copy(reader, number, value)
    return bytes(changed + _field(_OPSET, _field(1, _DOMAIN.encode()) + _field(2, 1))) if count else None


def _rewrite_graph(reader: Reader, span: Span) -> tuple[bytes, int]:
    """The graph, and how many of its nodes were changed."""
    changed, count = bytearray(), 0
    for number, value in reader.fields(span, GRAPH):
        node = _read_attention(reader, part(value)) if number == _NODE else None
        changed += _copy(reader, number, value) if node is None else _field(number, node.write())
        count += node is not None
    return bytes(changed), count


@dataclass(slots=True)
class _Attention:
    """One operator between tokens, with as many heads of keys as of queries."""

    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    settings: dict[str, int] = field(default_factory=dict)
    scale: bytes | None = None
    """The attribute as it is: it has the same name in both operators."""

    def write(self) -> bytes:
        """The same as MultiHeadAttention."""
        settings = {"num_heads": self.settings["q_num_heads"], "unidirectional": self.settings.get("is_causal", 0)}
        ports = [_field(_INPUT, name) for name in self.inputs] + [_field(_OUTPUT, name) for name in self.outputs]
        attributes = [_field(_NAME, name.encode()) + _field(_WHOLE, value) + _field(_TYPE, _IS_WHOLE) for name, value in settings.items()]
        attributes += [] if self.scale is None else [self.scale]
        rest = [_field(_ATTRIBUTE, each) for each in attributes]
        return b"".join([*ports, _field(_KIND, b"MultiHeadAttention"), *rest, _field(_NODE_DOMAIN, _DOMAIN.encode())])


def _read_attention(reader: Reader, span: Span) -> _Attention | None:
    """The attention operator of a node; None for other nodes, and for attention with a mask, past keys or shared heads."""
    fields = list(reader.fields(span, NODE))
    texts = {number: reader.text(value) for number, value in fields if number in (_KIND, _NODE_DOMAIN)}
    if texts.get(_KIND) != "Attention" or texts.get(_NODE_DOMAIN, "") not in _STANDARD:
        return None
    node, names = _Attention(), list[str]()
    for number, value in fields:
        if number in (_INPUT, _OUTPUT):
            (node.inputs if number == _INPUT else node.outputs).append(bytes(reader.content(value)))
        elif number == _ATTRIBUTE:
            name, whole = _read_attribute(reader, part(value))
            names.append(name)
            node.settings |= {} if whole is None else {name: whole}
            node.scale = bytes(reader.content(value)) if name == "scale" else node.scale
    while node.inputs and not node.inputs[-1]:
        node.inputs.pop()
    while node.outputs and not node.outputs[-1]:
        node.outputs.pop()
    return node if set(names) <= _KNOWN and _is_plain(node, node.settings) else None


def _is_plain(node: _Attention, settings: Mapping[str, int]) -> bool:
    heads = settings.get("q_num_heads", 0)
    return len(node.inputs) == _INPUTS and all(node.inputs) and len(node.outputs) == 1 and 0 < heads == settings.get("kv_num_heads")


def _read_attribute(reader: Reader, span: Span) -> tuple[str, int | None]:
    """Name and whole number of an attribute."""
    name, whole = "", None
    for number, value in reader.fields(span, ATTRIBUTE):
        if number == _NAME:
            name = reader.text(value)
        elif number == _WHOLE and isinstance(value, int):
            whole = value
    return name, whole


def _copy(reader: Reader, number: int, value: int | Span) -> bytes:
    return _field(number, value if isinstance(value, int) else bytes(reader.content(value)))


def _field(number: int, value: int | bytes) -> bytes:
    """A field as protobuf writes it: a number, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)
