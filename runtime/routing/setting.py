"""Settings of encoders and estimators, as read from JSON and checked."""

from __future__ import annotations


def whole_number(value: object) -> int:
    """The value, which must be a whole number; raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"setting {value!r}: expected a whole number")
    return value


def number(value: object) -> float:
    """The value, which must be a number; raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"setting {value!r}: expected a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("setting: expected a number, not one of hundreds of digits") from error


def text(value: object) -> str:
    """The value, which must be text; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"setting {value!r}: expected text")
    return value
