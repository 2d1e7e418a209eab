"""Numbers for JSON: six significant digits."""

from __future__ import annotations

from typing import Any

from costroute_rt.routing.array import FloatArray


def plain(values: FloatArray) -> list[float]:
    """All of them."""
    return [float(f"{value:.6g}") for value in values]


def rounded(value: Any) -> float | None:
    """None stays None."""
    return None if value is None else float(f"{float(value):.6g}")
