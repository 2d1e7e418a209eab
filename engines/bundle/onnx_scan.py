"""What an ONNX file is computed from: every tensor, wherever it stands, and the loops and sizes that could exhaust a machine.

A graph of a bundle uses standard operators on dense tensors. Whatever could hold other data, or run without an end, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from costroute_rt.engines.bundle.finite import PATTERNS, has_broken_number
from costroute_rt.engines.bundle.manifest import MOST_ELEMENTS
from costroute_rt.engines.bundle.onnx_file import LARGEST_FILE_BYTES, MOST_FIELDS, read_value
from costroute_rt.engines.bundle.onnx_schema import ATTRIBUTE, BITS, ENTRY, GRAPH, MODEL, NODE, TENSOR, VALUE
from costroute_rt.engines.bundle.protobuf import Reader, Span, part, signed

_MOST_AXES = 16
_MOST_NODES = 100_000
_MOST_SUBGRAPHS = 8
"""Graphs in each other."""
_MOST_TURNS = 10_000
"""Turns of a loop, and of loops in each other."""
_INFINITY_BYTES = 64 << 10
"""Larger tensors must be finite; small ones, such as attention masks, may hold infinity."""
_KNOWN_VALUES = 64
"""Whole numbers of constants with up to this many are kept."""
_STANDARD = ("", "ai.onnx")
_NO_END = ("Scan", "SequenceMap")
_SIZE_INPUTS = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "OneHot": 1, "Pad": 1, "Resize": 3, "Upsample": 1}
"""Operators whose output has a size that is an input, and which input."""
_TENSOR, _GRAPH, _TENSORS, _GRAPHS = 5, 6, 10, 11
"""Fields of an attribute."""
_FLOATS, _RAW, _DOUBLES, _WHOLE = 4, 9, 10, (5, 7, 11)
"""Fields of a tensor with its numbers."""
_DTYPE_OF = {_FLOATS: "float32", _DOUBLES: "float64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalTensor:
    """A tensor whose numbers lie in another file."""

    location: str
    """Path of the file, as the ONNX file has it."""
    offset: int
    length: int
    """Bytes."""
    dtype: str


def read_external_tensors(data: bytes) -> list[ExternalTensor]:
    """Every external tensor of an ONNX file; raises ValueError for a file that must not be in a bundle."""
    if len(data) > LARGEST_FILE_BYTES:
        raise ValueError(f"it is larger than {LARGEST_FILE_BYTES >> 20} MiB: keep its weights in a safetensors file")
    scan = _Scan(Reader(data, MOST_FIELDS))
    try:
        scan.model((0, len(data)))
    except RecursionError as error:
        raise ValueError("it is not ONNX") from error
    scan.check_loops()
    scan.check_sizes()
    return scan.external


@dataclass(slots=True)
class _Scan:
    """A walk over one file."""

    reader: Reader
    nodes: int = 0
    external: list[ExternalTensor] = field(default_factory=list)
    constants: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    """Whole numbers in the file by the name of their tensor, which several subgraphs may use."""
    computed: set[str] = field(default_factory=set)
    """Names of inputs and of what nodes compute."""
    loops: list[tuple[str, ...]] = field(default_factory=list)
    """For each loop the names of its number of turns and of those of the loops around it."""
    sizes: list[tuple[str, str]] = field(default_factory=list)
    """Operator and name of each input that is a size."""

    def model(self, span: Span) -> None:
        graphs = 0
        for number, value in self.reader.fields(span, MODEL):
            if number == 7:
                graphs += 1
                self.graph(part(value), ())
            elif number in MODEL.messages:
                self.reader.check(part(value), MODEL.messages[number])
        if not graphs:
            raise ValueError("it is not ONNX")

    def graph(self, span: Span, loops: tuple[str, ...], depth: int = 0) -> None:
        if depth > _MOST_SUBGRAPHS:
            raise ValueError(f"it has more than {_MOST_SUBGRAPHS} graphs in each other")
        for number, value in self.reader.fields(span, GRAPH):
            if number == 1:
                self.node(part(value), loops, depth)
            elif number == 5:
                self.tensor(part(value))
            elif number in GRAPH.messages:
                self.reader.check(part(value), GRAPH.messages[number])
                if GRAPH.messages[number] is VALUE:
                    name, spec = read_value(self.reader, part(value))
                    _check_shape([axis for axis in spec.shape if isinstance(axis, int)], f"the tensor {name}")
                    if number == 11:
                        self.computed.add(name)

    def node(self, span: Span, loops: tuple[str, ...], depth: int) -> None:
        inputs, outputs, kind, attributes = list[str](), list[str](), "", list[Span]()
        for number, value in self.reader.fields(span, NODE):
            if number in (1, 2):
                (inputs if number == 1 else outputs).append(self.reader.text(value))
            elif number == 4:
                kind = self.reader.text(value)
            elif number == 5:
                attributes.append(part(value))
            elif number == 7 and self.reader.text(value) not in _STANDARD:
                raise ValueError(f"it has an operator of {self.reader.text(value)!r}: only standard operators are allowed")
            elif number == 9:
                self.reader.check(part(value), ENTRY)
        self.nodes += 1
        if not kind or self.nodes > _MOST_NODES:
            raise ValueError(f"it has more than {_MOST_NODES} nodes" if kind else "it has a node without an operator")
        if kind in _NO_END:
            raise ValueError(f"it has the operator {kind}, which is not known to end")
        if kind == "Loop":
            loops = (*loops, inputs[0] if inputs else "")
            self.loops.append(loops)
        if kind in _SIZE_INPUTS and len(inputs) > _SIZE_INPUTS[kind]:
            self.sizes.append((kind, inputs[_SIZE_INPUTS[kind]]))
        constant = outputs[0] if kind == "Constant" and len(outputs) == 1 else None
        self.computed.update(() if constant else outputs)
        for attribute in attributes:
            self.attribute(attribute, kind, constant, loops, depth)

    def attribute(self, span: Span, kind: str, constant: str | None, loops: tuple[str, ...], depth: int) -> None:
        """constant: name of the output, if the node is a constant."""
        name, numbers = "", list[int]()
        for number, value in self.reader.fields(span, ATTRIBUTE):
            if number in (_TENSOR, _TENSORS):
                self.tensor(part(value), constant)
            elif number in (_GRAPH, _GRAPHS):
                self.graph(part(value), loops, depth + 1)
            elif number in (3, 8):
                numbers += [signed(each) for each in self.reader.numbers(value)]
            elif number == 1:
                name = self.reader.text(value)
            elif number in ATTRIBUTE.messages:
                self.reader.check(part(value), ATTRIBUTE.messages[number])
        if constant and numbers and len(numbers) <= _KNOWN_VALUES:
            self.constants.setdefault(constant, []).append(tuple(numbers))
        if kind.startswith("Random") and name == "shape":
            _check_shape(numbers, f"an output of {kind}")

    def tensor(self, span: Span, constant: str | None = None) -> None:
        """constant: name of the value if the tensor has none of its own."""
        name, kind, axes, is_external = constant or "", 0, list[int](), False
        entries, data = list[Span](), dict[int, list[int | Span]]()
        for number, value in self.reader.fields(span, TENSOR):
            if number == 1:
                axes += self.reader.numbers(value)
            elif number == 2 and isinstance(value, int):
                kind = value
            elif number == 8 and constant is None:
                name = self.reader.text(value)
            elif number == 13:
                entries.append(part(value))
            elif number == 14:
                is_external = value == 1
                if value not in (0, 1):
                    raise ValueError(f"the tensor {name} has an unknown location")
            elif number in (_FLOATS, _RAW, _DOUBLES, *_WHOLE):
                data.setdefault(number, []).append(value)
            elif number == 16:
                self.reader.check(part(value), ENTRY)
        if kind not in BITS:
            raise ValueError(f"the tensor {name} has an unknown type, {kind}")
        if len(axes) > _MOST_AXES or any(axis > 1 << 40 for axis in axes):
            raise ValueError(f"the tensor {name} has an impossible shape")
        dtype, bits = BITS[kind]
        size = -(-math.prod(axes) * bits // 8)
        places = [self._entry(entry) for entry in entries]
        if is_external != bool(entries) or len(data) > (0 if is_external else 1):
            where = f": in the file and in {dict(places).get('location')}" if entries else ""
            raise ValueError(f"the numbers of the tensor {name} have more than one place, or none{where}")
        if is_external:
            self.external.append(_external(name, places, size, dtype))
        else:
            self.inline(name, dtype, math.prod(axes), size, data)

    def _entry(self, span: Span) -> tuple[str, str]:
        found = {number: self.reader.text(value) for number, value in self.reader.fields(span, ENTRY)}
        return found.get(1, ""), found.get(2, "")

    def inline(self, name: str, dtype: str, elements: int, size: int, data: dict[int, list[int | Span]]) -> None:
        """Check a tensor whose numbers are in the file; keep those of small constants.

        size: bytes of all elements. data: the field with the numbers, and its values.
        """
        number, parts = next(iter(data.items()), (_RAW, []))
        whole, content = list[int](), b""
        if number in _WHOLE:
            whole = [signed(each) for value in parts for each in self.reader.numbers(value)]
            if dtype in PATTERNS:  # float16 and smaller, as whole numbers with their bits
                content = np.array(whole, dtype=np.int64).astype(PATTERNS[dtype][0]).tobytes()
            is_complete = len(whole) == elements or (dtype.endswith("int4") and len(whole) == size)
        else:
            content = b"".join(self.reader.content(value) for value in parts)
            is_complete = len(content) == size and dtype == _DTYPE_OF.get(number, dtype)
        if not is_complete:
            raise ValueError(f"the tensor {name} has too few or too many numbers for its shape")
        if has_broken_number(content, dtype, allows_infinity=size <= _INFINITY_BYTES):
            raise ValueError(f"the tensor {name} holds NaN or infinity")
        if dtype in ("int32", "int64") and elements <= _KNOWN_VALUES:
            values = whole or np.frombuffer(content, dtype=f"<i{size // max(elements, 1) or 8}").tolist()
            self.constants.setdefault(name, []).append(tuple(values))

    def check_loops(self) -> None:
        """Raises ValueError for a loop whose turns are not a constant, or are many."""
        for names in self.loops:
            turns = 1
            for name in names:
                known = self.constants.get(name, [])
                if len(known) != 1 or name in self.computed or len(known[0]) != 1:
                    raise ValueError("it has a loop that is not known to end: expected a constant number of turns")
                turns *= max(known[0][0], 0)
            if turns > _MOST_TURNS:
                raise ValueError(f"it has a loop of {turns} turns: expected {_MOST_TURNS} at most")

    def check_sizes(self) -> None:
        """Raises ValueError for an operator that is to make a huge tensor."""
        for kind, name in self.sizes:
            for values in self.constants.get(name, ()):
                largest = [max((abs(each) for each in values), default=0)]
                _check_shape(largest if kind == "Pad" else values, f"an output of {kind}")


def _external(name: str, entries: list[tuple[str, str]], size: int, dtype: str) -> ExternalTensor:
    found = dict(entries)
    numbers = {key: found.get(key, default) for key, default in (("offset", "0"), ("length", str(size)))}
    is_plain = all(each.isascii() and each.isdigit() and len(each) < 20 for each in numbers.values())
    if len(found) != len(entries) or not is_plain or not found.keys() <= {"location", "offset", "length", "checksum"}:
        raise ValueError(f"the tensor {name} says in no plain way where its external data are")
    if int(numbers["length"]) != size:
        raise ValueError(f"the tensor {name} has {numbers['length']} bytes: expected {size}")
    return ExternalTensor(location=found.get("location", ""), offset=int(numbers["offset"]), length=size, dtype=dtype)


def _check_shape(axes: Sequence[int], what: str) -> None:
    """Raises ValueError for a tensor of too many numbers; axes: its lengths, where those below 1 are not known."""
    if len(axes) > _KNOWN_VALUES or math.prod(max(axis, 1) for axis in axes) > MOST_ELEMENTS:
        raise ValueError(f"{what} has more than {MOST_ELEMENTS} numbers")
