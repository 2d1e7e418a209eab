"""Types of numeric options: every value that a command gets is finite and of a size it can calculate with."""

from __future__ import annotations

import math
import re
from typing import Any

import click

LARGEST = 1e12
"""Of numbers with fractions: products of two of them, and seconds as milliseconds, stay finite."""
LARGEST_WHOLE = 2**31 - 1
_UNITS = {"": 1, "b": 1, **{f"{unit}b": 1000**power for power, unit in enumerate("kmgt", 1)}}
_UNITS |= {f"{unit}ib": 1 << 10 * power for power, unit in enumerate("kmgt", 1)}
_SIZE = re.compile(r"(?P<number>\d{1,15}(\.\d{1,9})?) ?(?P<unit>|b|[kmgt]i?b)", re.IGNORECASE | re.ASCII)
_LARGEST_SIZE = 1 << 50
SEED_LIMIT = 2**32
"""Seeds are below this."""


class Number(click.FloatRange):
    """A finite number; click's own range lets `nan` and `inf` pass."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found) or abs(found) > LARGEST:
            self.fail(f"{value!r} is not a number up to 1e12.", param, ctx)
        return found


class Size(click.types.StringParamType):
    """A number of bytes: `6GiB`, `800MB`, `2.5 GB` or a plain number."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value).strip())
        count = float(found["number"]) * _UNITS[found["unit"].lower()] if found else 0.0
        if not 1 <= count <= _LARGEST_SIZE:
            self.fail(f"{value!r} is not a size such as 6GiB or 800MB.", param, ctx)
        return int(count)


class WholeNumber(click.IntRange):
    """A whole number that fits 32 bits with a sign, unless another `max` is given."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if self.max is None and abs(found) > LARGEST_WHOLE:
            self.fail(f"{value!r} is not a number up to {LARGEST_WHOLE}.", param, ctx)
        return found
