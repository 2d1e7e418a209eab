"""The settings of a network, read with bounds: what a file says decides how many parameters are counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from costroute_rt.engines.bundle.section import shorten
from costroute_rt.error import BundleError

MOST_BLOCKS, MOST_LAYERS = 8, 16
"""Blocks of a UNet or VAE, and layers of each."""
_WIDEST = 1 << 20
_CORRECT = "download the checkpoint again, or correct its configuration"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one class, with the file that they are from."""

    values: Mapping[str, Any]
    path: Path

    def whole(self, key: str, default: int, most: int = _WIDEST) -> int:
        """A whole number from 1 to `most`; raises BundleError."""
        value = self.values.get(key, default)
        if not _is_whole(value, most):
            self.refuse(key, f"a whole number from 1 to {most}")
        return int(value)

    def optional(self, key: str, most: int = _WIDEST) -> int | None:
        """As `whole`; None if it is not set."""
        return None if self.values.get(key) is None else self.whole(key, 0, most)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return bool(value)

    def numbers(self, *keys: str, most: float = _WIDEST) -> None:
        """Raises BundleError if a setting that is given is not a number from 0 to `most`."""
        for key in keys:
            value = self.values.get(key, 0)
            if type(value) not in (int, float) or not 0 <= value <= most:
                self.refuse(key, f"a number from 0 to {most}")

    def choice(self, key: str, *known: object) -> None:
        """Raises BundleError if a setting that is given is none of these values."""
        if key in self.values and not any(type(self.values[key]) is type(each) and self.values[key] == each for each in known):
            self.refuse(key, f"one of {', '.join(map(str, known))}")

    def divisor(self, key: str, default: int, widths: tuple[int, ...]) -> int:
        """A whole number that divides all the widths."""
        value = self.whole(key, default)
        if any(width % value for width in widths):
            self.refuse(key, f"a divisor of {', '.join(map(str, dict.fromkeys(widths)))}")
        return value

    def size(self, key: str) -> None:
        """Raises BundleError if a setting that is given is neither a whole number above 0 nor a list of two."""
        value = self.values.get(key, 1)
        if not all(_is_whole(each, _WIDEST) for each in (value if isinstance(value, list) and len(value) == 2 else [value])):
            self.refuse(key, "a whole number or two")

    def widths(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """One width for each block."""
        value = self.values.get(key, default)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_BLOCKS or not all(_is_whole(each, _WIDEST) for each in value):
            self.refuse(key, f"a list of 1 to {MOST_BLOCKS} widths")
        return tuple(value)

    def each(self, key: str, default: int | tuple[int, ...], blocks: int, most: int = _WIDEST) -> tuple[int, ...]:
        """A number for each block: given as one for all, or as a list."""
        value = self.values.get(key, default)
        numbers = value if isinstance(value, list | tuple) else [value] * blocks
        if len(numbers) != blocks or not all(_is_whole(number, most) for number in numbers):
            self.refuse(key, f"a whole number from 1 to {most}, or a list of {blocks}")
        return tuple(numbers)

    def types(self, key: str, default: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
        """The type of each block, one of `known`."""
        value = self.values.get(key, default)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_BLOCKS or not all(each in known for each in value):
            self.refuse(key, f"a list of {' and '.join(known)}")
        return tuple(value)

    def only(self, **expected: Any) -> None:
        """Raises BundleError if a setting is neither missing nor the expected value, the only one that is supported."""
        for key, value in expected.items():
            found = self.values.get(key, value)
            if found != value or type(found) is not type(value):
                raise BundleError(self.path, f"{key} is {shorten(self.values[key])}", f"only networks with {value!r} are supported")

    def refuse(self, key: str, expected: str) -> NoReturn:
        raise BundleError(self.path, f"{key} is {shorten(self.values.get(key))}: expected {expected}", _CORRECT)


def _is_whole(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most
