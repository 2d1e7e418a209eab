"""Strict reading of protobuf messages, without the `protobuf` package.

A message is refused unless every field is one of its schema, in its own form, and appears at most once if it is not repeated. So no other
reader finds anything in a file that this one did not see: protobuf itself skips unknown fields, merges messages that appear twice and
drops the upper bits of numbers that are too long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Forms of a field on the wire; the two forms of groups (3, 4) are refused."""
REPEATED, PACKABLE = 8, 16
"""Added to a form: the field may appear several times; its numbers may also be packed."""
_TOO_MANY = "it has too many fields"
_MOST_BYTES_OF = {"tag": 5, "length": 5, "number": 10}
_LARGEST = {"tag": (1 << 32) - 1, "length": (1 << 31) - 1, "number": (1 << 64) - 1}

Span = tuple[int, int]
"""Start and end of a message or text in the file."""


@dataclass(frozen=True, eq=False)
class Schema:
    """The fields of one message."""

    name: str
    forms: Mapping[int, int]
    """By field number."""
    messages: Mapping[int, Schema] = field(default_factory=dict)
    """Schemas of the fields that are messages, for `Reader.check`."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Fields that the format has but that are refused, and what they hold."""


class Reader:
    """Reads one file; the number of fields is limited, as each takes about a microsecond."""

    def __init__(self, data: bytes, most_fields: int) -> None:
        self._data, self._left = data, most_fields

    def fields(self, span: Span, schema: Schema) -> Iterator[tuple[int, int | Span]]:
        """Each field of a message: its number, and its integer or the span of its bytes; raises ValueError for what is refused."""
        data, forms, (at, end) = self._data, schema.forms, span
        seen = 0  # one bit for each field number
        while at < end:
            tag, at = (data[at], at + 1) if data[at] < 128 else self._varint(at, end, "tag")
            number, wire = tag >> 3, tag & 7
            form = forms.get(number)
            if form is None or (wire != form & 7 and not (form & PACKABLE and wire == BYTES)):
                raise ValueError(_describe(schema, number, wire, is_known=form is not None))
            if not form & REPEATED:
                if seen >> number & 1:
                    raise ValueError(f"the field {number} of {schema.name} appears twice")
                seen |= 1 << number
            self._left -= 1
            if self._left < 0:
                raise ValueError(_TOO_MANY)
            if wire == VARINT:
                value, at = (data[at], at + 1) if at < end and data[at] < 128 else self._varint(at, end, "number")
                yield number, value
                continue
            size = 8 if wire == FIXED64 else 4
            if wire == BYTES:
                size, at = (data[at], at + 1) if at < end and data[at] < 128 else self._varint(at, end, "length")
            if size > end - at:
                raise ValueError("it is cut short or not ONNX")
            yield number, (at, at + size)
            at += size

    def check(self, span: Span, schema: Schema) -> None:
        """Check a message, and the messages in it, against its schema."""
        for number, value in self.fields(span, schema):
            inner = schema.messages.get(number)
            if inner is not None and not isinstance(value, int):
                self.check(value, inner)

    def numbers(self, value: int | Span) -> Iterator[int]:
        """The integers of a repeated field: one, or several that are packed."""
        if isinstance(value, int):
            yield value
            return
        at, end = value
        while at < end:
            self.count()
            number, at = self._varint(at, end, "number")
            yield number

    def content(self, value: int | Span) -> memoryview:
        """The bytes of a field."""
        start, end = part(value)
        return memoryview(self._data)[start:end]

    def text(self, value: int | Span) -> str:
        """The text of a field; raises ValueError for other bytes than UTF-8."""
        return str(self.content(value), "utf-8")

    def count(self) -> None:
        """Count one field, or number in a field."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(_TOO_MANY)

    def _varint(self, at: int, end: int, kind: str) -> tuple[int, int]:
        value = 0
        for shift in range(0, 7 * _MOST_BYTES_OF[kind], 7):
            if at >= end:
                raise ValueError("it is cut short or not ONNX")
            byte = self._data[at]
            value |= (byte & 127) << shift
            at += 1
            if byte < 128:
                break
        else:
            raise ValueError(f"a {kind} is too long: it is not ONNX")
        if value > _LARGEST[kind]:
            raise ValueError(f"a {kind} is too large: it is not ONNX")
        return value, at


def part(value: int | Span) -> Span:
    """The span of a field that holds bytes."""
    if isinstance(value, int):
        raise ValueError("a field has the wrong type: it is not ONNX")
    return value


def signed(value: int) -> int:
    """A number of the type int64, as protobuf writes negative ones."""
    return value - (1 << 64) if value >> 63 else value


def _describe(schema: Schema, number: int, wire: int, *, is_known: bool) -> str:
    if number in schema.refused:
        return f"it has {schema.refused[number]}, which bundles must not have"
    if number == 0 or wire not in (VARINT, FIXED64, BYTES, FIXED32):
        return "it is cut short or not ONNX"
    return (
        f"the field {number} of {schema.name} {'has the wrong type' if is_known else 'is unknown'}: it is not ONNX as this version reads it"
    )
