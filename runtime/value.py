"""Values that compare and hash by their content, and that print as one line."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

_MOST_HASHED = 64
"""Arrays with more elements than this contribute only their type and shape to a hash."""


class Value:
    """Base of frozen dataclasses that hold arrays or numbers that may be NaN: arrays compare by content, and NaN equals NaN."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_are_equal(ours, theirs) for ours, theirs in zip(_content(self), _content(other), strict=True))

    def __hash__(self) -> int:
        return hash((type(self).__qualname__, *map(_hashable, _content(self))))


def shorten(text: str, most: int = 40) -> str:
    """`text` in quotes, with control characters escaped, cut after `most` characters."""
    return repr(text) if len(text) <= most else f"{text[: most - 3]!r}..."


def _content(value: Any) -> list[Any]:
    return [getattr(value, field.name) for field in fields(value) if field.compare]


def _are_equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)) or a.dtype != b.dtype:
            return False
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_are_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return isinstance(a, tuple) == isinstance(b, tuple) and len(a) == len(b) and all(map(_are_equal, a, b))
    return bool(a == b) or (_is_nan(a) and _is_nan(b))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(value != value)


def _hashable(value: Any) -> Hashable:
    """Equal values give equal results; unequal ones mostly do not."""
    if isinstance(value, np.ndarray):
        few = tuple(map(_hashable, value.ravel().tolist())) if value.size <= _MOST_HASHED else ()
        return value.dtype.str, value.shape, few
    if isinstance(value, Mapping):
        return frozenset((key, _hashable(each)) for key, each in value.items())
    if isinstance(value, tuple | list):
        return tuple(map(_hashable, value))
    if _is_nan(value):
        return "nan"
    try:
        hash(value)
    except TypeError:  # such as a PIL image
        return type(value).__qualname__
    return value  # type: ignore[no-any-return]
