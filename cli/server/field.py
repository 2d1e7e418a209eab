"""The fields of a request's body, read with their types and bounds."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from costroute_rt.cli.server.problem import Problem, invalid

_NONE = (None, "")


class Fields(Mapping[str, Any]):
    """Values by name; those that are missing, null or empty count as left out. Wrong ones raise Problem."""

    def __init__(self, values: Mapping[str, Any], *, has_texts: bool = False) -> None:
        """has_texts: whether numbers and flags may be texts, as in forms."""
        self._values, self._has_texts = values, has_texts

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def has(self, name: str) -> bool:
        """Whether there is a value."""
        value = self._values.get(name)
        return value is not None and not (self._has_texts and value == "")

    def only(self, known: Collection[str]) -> Fields:
        """Itself; raises Problem for a name that is not known."""
        for name in self._values:
            if name not in known:
                raise invalid(
                    str(name)[:64], f"there is no field {str(name)[:64]!r}; known are {', '.join(sorted(known))}", code="unknown_field"
                )
        return self

    def text(self, name: str, *, most: int = 1000) -> str | None:
        if not self.has(name):
            return None
        value = self._values[name]
        if not isinstance(value, str):
            raise invalid(name, f"{name} must be text")
        if len(value) > most:
            raise invalid(name, f"{name} has {len(value)} characters, of which {most} are the most", code="too_long")
        return value

    def number(self, name: str, *, least: float | None = None, above: float | None = None, most: float | None = None) -> float | None:
        if not self.has(name):
            return None
        value: float = self._read(name, float)
        if (least is not None and value < least) or (above is not None and value <= above) or (most is not None and value > most):
            bounds = [f"{least:g} or more" if least is not None else "", f"above {above:g}" if above is not None else ""]
            bounds.append(f"up to {most:g}" if most is not None else "")
            raise invalid(name, f"{name} must be {', '.join(filter(None, bounds))}")
        return value

    def whole(self, name: str, *, least: int, most: int) -> int | None:
        if not self.has(name):
            return None
        value: int = self._read(name, int)
        if not least <= value <= most:
            raise invalid(name, f"{name} must be from {least} to {most}")
        return value

    def flag(self, name: str) -> bool | None:
        if not self.has(name):
            return None
        value = self._values[name]
        if self._has_texts and isinstance(value, str) and value.lower() in ("true", "false", "1", "0"):
            return value.lower() in ("true", "1")
        if not isinstance(value, bool):
            raise invalid(name, f"{name} must be true or false")
        return value

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        value = self.text(name)
        if value is not None and value not in choices:
            raise invalid(name, f"{name} must be one of {', '.join(choices)}")
        return value

    def image(self, name: str) -> bytes | None:
        """The bytes of an image file in base64, with or without the head of a data URL."""
        if not self.has(name):
            return None
        return decode_base64(name, self._values[name])

    def _read(self, name: str, kind: type[Any]) -> Any:
        value, what = self._values[name], "a whole number" if kind is int else "a number"
        if self._has_texts and isinstance(value, str):
            try:
                value = float(value) if len(value) <= 32 else math.nan
            except ValueError:
                value = math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(name, f"{name} must be {what}")
        if isinstance(value, float) and (not math.isfinite(value) or (kind is int and not value.is_integer())):
            raise invalid(name, f"{name} must be {what}")
        try:
            return kind(value)
        except OverflowError as error:
            raise invalid(name, f"{name} is too large") from error


def decode_base64(name: str, value: object) -> bytes:
    """The bytes of a file; raises Problem for anything else than base64, a path or an address for example."""
    if not isinstance(value, str):
        raise invalid(name, f"{name} must be an image file in base64")
    text = value.partition(",")[2] if value[:5] == "data:" else value
    try:
        return base64.b64decode(text, validate=True) if "\n" not in text else base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(name, f"{name} must be an image file in base64; paths and addresses are not read", code="invalid_image") from error


def check_object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Problem(400, "invalid_json", "the body must be a JSON object")
    return value
