"""Finding NaN and infinity in weights, whatever the precision they are stored in."""

from __future__ import annotations

from typing import Any

import numpy as np

_BLOCK_BYTES = 4 << 20
PATTERNS: dict[str, tuple[str, int, int]] = {
    "float32": ("<u4", 0x7F800000, 0x7F800000),
    "float64": ("<u8", 0x7FF0000000000000, 0x7FF0000000000000),
    "float16": ("<u2", 0x7C00, 0x7C00),
    "bfloat16": ("<u2", 0x7F80, 0x7F80),
    "float8_e4m3fn": ("u1", 0x7F, 0x7F),
    "float8_e4m3fnuz": ("u1", 0xFF, 0x80),
    "float8_e5m2": ("u1", 0x7C, 0x7C),
    "float8_e5m2fnuz": ("u1", 0xFF, 0x80),
}
"""By dtype: an integer of the same size, a mask of its bits, and their value in NaN and infinity."""
_INFINITIES = {"float32": 0x7F800000, "float64": 0x7FF0000000000000, "float16": 0x7C00, "bfloat16": 0x7F80, "float8_e5m2": 0x7C}


def has_broken_number(data: Any, dtype: str, *, allows_infinity: bool = False) -> bool:
    """Whether bytes hold a NaN or an infinity (a NaN only, if infinities are allowed); False for dtypes that have neither.

    data: a buffer, such as bytes, a memoryview or a memory map; numbers are read in little-endian order.
    """
    if dtype not in PATTERNS:
        return False
    kind, mask, pattern = PATTERNS[dtype]
    view = memoryview(data)
    usable = len(view) - len(view) % np.dtype(kind).itemsize
    for start in range(0, usable, _BLOCK_BYTES):
        bits = np.frombuffer(view[start : min(start + _BLOCK_BYTES, usable)], dtype=kind)
        broken = (bits & bits.dtype.type(mask)) == pattern
        if allows_infinity and dtype in _INFINITIES and broken.any():
            magnitude = bits[broken] & bits.dtype.type(~(1 << (8 * bits.itemsize - 1)) & ((1 << 8 * bits.itemsize) - 1))
            broken = magnitude != _INFINITIES[dtype]
        if broken.any():
            return True
    return False
