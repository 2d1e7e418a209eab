"""Types of numeric options: every value that a command gets is finite and of a size it can calculate with."""

from __future__ import annotations

import math
from typing import Any

import click

LARGEST = 1e12
"""Of numbers with fractions: products of two of them, and seconds as milliseconds, stay finite."""
LARGEST_WHOLE = 2**31 - 1
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


class WholeNumber(click.IntRange):
    """A whole number that fits 32 bits with a sign, unless another `max` is given."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if self.max is None and abs(found) > LARGEST_WHOLE:
            self.fail(f"{value!r} is not a number up to {LARGEST_WHOLE}.", param, ctx)
        return found
