"""A bound on the memory that JSON takes once it is parsed: a small text can hold a list of millions of empty lists."""

from __future__ import annotations


def check_json_size(data: bytes, most_values: int) -> None:
    """Raises ValueError if JSON may hold more than `most_values` values; commas and brackets in its texts count too."""
    found = sum(map(data.count, (b",", b"[", b"{")))
    if found > most_values:
        raise ValueError(f"it holds more than {most_values:,} values")
