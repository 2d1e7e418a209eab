"""Odd values: numbers, texts and objects at the edges of what an argument may be."""

from __future__ import annotations

import enum
import math
import re
import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

NUMBERS = (
    "nan", "-nan", "inf", "-inf", "1e309", "1e300", "1e12", "1e13", "1e-320", "-0", "0", "-1", "1", "2", "3", "0.5", "1.5", "7.0", "1e3",
    "0x10", "0b1", "1_000", " 7 ", "+7", "１２", "٣", "²", "2147483647", "2147483648", "4294967295", "4294967296", "9223372036854775807",
    "9223372036854775808", "1" + "0" * 30, "9" * 5000, "", " ", "half", "1e", "--", "True", "None", "1,5", "1\n", "\u00a07", "10001",
    "65536",
)  # fmt: skip
TEXTS = (
    "", " ", "\t", "\n", "a lake", "a red house by a lake", "\0", "a\0b", "\x1b[31m", "\x7f", "\x85", "\ud800", "\udce9", "caf\udce9",
    "\ufeff", "\ufffe",
    "\u202eabc", "\u2028", "é" * 300, "🏠" * 1000, "👩‍👩‍👧", "x" * 255, "x" * 256, "x" * 5000, "word " * 20000, "-", "--", "-h", "--help",
    "@file", "{slug}", "{}", "{0}", "{line}{index}", "%s", "%(a)s", "%", "$HOME", "`id`", "$(id)", "~", "~nobody-here", "..", ".", "../x",
    "a/b", "a//b",
    "con", "nan", "inf", "1e309", "NULL", "null", "true", "<b>", "'", '"', "\\", "a'b\"c", ";", "&&", "|", "*", "?", "[", "#", "# x",
    "#x", "==", "=",
    ":", "::", "os:system", "a:b", "a.b:c", ".:", "clip:", "clip:x", "postcard", "<|endoftext|>", "<|startoftext|></w>", "İ", "ß", "ﬁ",
    "\u0300", "\u0000",
)  # fmt: skip


class Text(str):
    """A kind of text."""


class Whole(int):
    """A kind of whole number."""


class Colour(str, enum.Enum):
    RED = "red"


def numbers_list() -> list[int]:
    return [1, 2]


def objects() -> list[Callable[[], Any]]:
    """Makers of values of every type; each call makes a new one, because some can be used up."""
    plain: tuple[Any, ...] = (
        None, True, False, 0, 1, -1, 2, 7, 10_001, 2**31, 2**32, 2**63 - 1, 2**63, 10**30, -(10**30), 10**400, 0.0, -0.0, 0.5, 1.0, 2.5,
        1e-320, 1e300, math.inf,
        -math.inf, math.nan, 1j, Decimal("1.5"), Decimal("NaN"), Decimal("sNaN"), Decimal("1e999"), Fraction(1, 3), Fraction(10**400, 3),
        np.int64(3), np.int8(-1), np.uint64(2**64 - 1), np.float32(0.5), np.float64("nan"), np.float16(2), np.bool_(True),
        np.str_("a lake"), np.bytes_(b"x"),
        np.datetime64("2020-01-01"), np.timedelta64(5, "ms"), np.complex64(1), np.array(3), np.array([1.0]), np.array([]), np.array([[1,
        2]]),
        np.array("a lake"), np.array(["a", "b"]), np.array([None]), np.ma.masked, Text("a lake"), Whole(3), Colour.RED, *TEXTS, b"",
        b"a lake", bytearray(b"x"),
        memoryview(b"x"), Path("x"), Path(), range(3), slice(1), ..., NotImplemented, int, str, len, object(), ValueError("x"),
    )  # fmt: skip
    fresh: tuple[Callable[[], Any], ...] = (
        list, dict, set, frozenset, tuple, lambda: ["a lake"], lambda: ["a lake", "a house"], lambda: ("a", None), lambda: {"a": 1},
        lambda: {"a"},
        lambda: iter(["a lake"]), lambda: (each for each in ("a", "b")), numbers_list, threading.Event, lambda: threading,
        lambda: lambda *_: None,
        lambda: lambda *_: False, lambda: lambda: None, lambda: [[]], lambda: [np.nan], lambda: deep(2000), lambda: {1: deep(50)},
    )  # fmt: skip
    return [*((lambda value=value: value) for value in plain), *fresh]


def deep(levels: int) -> list[Any]:
    """A list in a list in a list ..."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


OBJECTS = objects()


def odd_object(random: Random) -> Any:
    return random.choice(OBJECTS)()


def odd_text(random: Random) -> str:
    """One of the known ones, a mixture of them, or characters drawn from everywhere."""
    kind = random.random()
    if kind < 0.7:
        return random.choice(TEXTS)
    if kind < 0.85:
        return "".join(random.choice(TEXTS)[:40] for _ in range(random.randint(2, 4)))
    return "".join(
        chr(random.choice((random.randrange(128), random.randrange(0x3000), random.randrange(0x110000))))
        for _ in range(random.randint(1, 30))
    )


def odd_number(random: Random) -> str:
    kind = random.random()
    if kind < 0.8:
        return random.choice(NUMBERS)
    return repr(
        random.choice(
            (random.randint(-10, 200), random.uniform(-1, 10), 10 ** random.uniform(-30, 30), random.getrandbits(random.randint(1, 80)))
        )
    )


def some(random: Random, values: Sequence[T], share: float) -> list[T]:
    """Each value with this probability."""
    return [each for each in values if random.random() < share]


def show(value: object, length: int = 300) -> str:
    """The value as text that fits a report."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} without a repr: {error!r}>"
    text = (
        re.sub(r"(.)\1{20,}", lambda run: f"{run[1] * 3}...x{len(run[0])}...", text, flags=re.DOTALL)
        .encode("ascii", "backslashreplace")
        .decode()
    )
    return text if len(text) <= length else f"{text[: length - 30]}... ({len(text)} characters)"
