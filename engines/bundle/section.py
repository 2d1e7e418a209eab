"""Validated reading of manifests: untrusted JSON becomes typed values, or an error that names the entry."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

Fail = Callable[[str], NoReturn]
"""Raises the caller's own error for a problem found in a manifest."""

MOST_BYTES = 2 << 20
"""Of a manifest; the shipped bundle's has 30 kB."""
_LARGEST = sys.float_info.max
LARGEST_INTEGER = 2**53
"""The largest whole number that every reader of JSON keeps."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Characters that terminals may act on; texts may have tabs and new lines."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair, as JSON writes it."""


@dataclass(frozen=True, slots=True)
class Section:
    """One JSON object of a manifest, with its position."""

    values: Mapping[str, Any]
    place: str
    fail: Fail

    def at(self, key: str) -> str:
        """Position of `key` in the manifest, for messages."""
        return f"{self.place}.{key}" if self.place else key

    def get(self, key: str, kind: type | tuple[type, ...], wanted: str) -> Any:
        """The value of `key`, which must exist and be of `kind`."""
        if key not in self.values:
            self.fail(f"manifest has no {self.at(key)}")
        value = self.values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fail(f"manifest {self.at(key)} is {shorten(value)}: expected {wanted}")
        return value

    def text(self, key: str) -> str:
        value = self.get(key, str, "text")
        if not value.strip() or _CONTROLS.search(value):
            self.fail(f"manifest {self.at(key)} is empty or not plain text")
        return str(value)

    def integer(self, key: str, minimum: int = 0, maximum: int = LARGEST_INTEGER) -> int:
        value = self.get(key, int, "a whole number")
        if value < minimum:
            self.fail(f"manifest {self.at(key)} is {shorten(value)}: expected {minimum} or more")
        if value > maximum:
            self.fail(f"manifest {self.at(key)} is {shorten(value)}: expected {maximum} or less")
        return int(value)

    def number(self, key: str, minimum: float = -math.inf) -> float:
        value = self.get(key, (int, float), "a number")
        if not -_LARGEST <= value <= _LARGEST or value < minimum:
            self.fail(f"manifest {self.at(key)} is {shorten(value)}: expected a finite number of {minimum} or more")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.get(key, bool, "true or false")) if key in self.values else default

    def items(self, key: str) -> list[Any]:
        return list(self.get(key, list, "a list"))

    def section(self, key: str) -> Section:
        return Section(self.get(key, dict, "an object"), self.at(key), self.fail)

    def sections(self, key: str) -> Iterator[tuple[str, Section]]:
        """Name and section of every member of the object under `key`; each member must be an object."""
        inner = self.section(key)
        for name in inner.values:
            yield name, inner.section(name)

    def rows(self, key: str) -> Iterator[Section]:
        """Every member of the list under `key`; each must be an object."""
        for index, value in enumerate(self.items(key)):
            place = f"{self.at(key)}[{index}]"
            if not isinstance(value, dict):
                self.fail(f"manifest {place} is {shorten(value)}: expected an object")
            yield Section(value, place, self.fail)

    def texts(self, key: str) -> dict[str, str]:
        """The object under `key`; all its values must be text."""
        inner = self.section(key)
        return {name: inner.text(name) for name in inner.values}

    def sha256(self, key: str) -> str:
        value = self.text(key)
        if len(value) != 64 or set(value) - set("0123456789abcdef"):
            self.fail(f"manifest {self.at(key)} is {shorten(value)}: expected 64 hexadecimal digits")
        return value


def parse_section(data: bytes, fail: Fail) -> Section:
    """The JSON object in `data`; duplicate names, NaN, invalid UTF-8 and halves of surrogate pairs are errors."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique_names, parse_constant=_refuse)
        if _HALF.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        fail("manifest is not valid JSON: a text has half of a surrogate pair")
    except (ValueError, RecursionError) as error:
        fail(f"manifest is not valid JSON: {error}")
    if not isinstance(value, dict):
        fail(f"manifest is {shorten(value)}: expected an object")
    return Section(value, "", fail)


def canonical_json(value: object) -> bytes:
    """The canonical JSON of a value: sorted keys, indent 1, UTF-8, a newline at the end."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def shorten(value: object, length: int = 60) -> str:
    """`repr(value)`, truncated to keep messages readable."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these names and values, for `json.loads`; raises ValueError for a name that appears twice."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name appears twice in one object")
    return values


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
