"""Offsets of the tensors in a safetensors file, so that an ONNX graph can refer to them as external data."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.error import BundleError

_MAX_HEADER_BYTES = 100 << 20
ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
"""Bytes of one number, for the dtypes that a graph may refer to."""
_EXPORT_AGAIN = "export the checkpoint again"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a safetensors file and its position."""

    name: str
    dtype: str
    """As safetensors writes it: F16, F32, I64 ..."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    length: int
    """Bytes of the tensor."""


def read_stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, by name; raises BundleError if it is not one or a tensor lies outside it."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if header_bytes > min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError(f"a header of {header_bytes} bytes")
            header = json.loads(file.read(header_bytes))
        header.pop("__metadata__", None)
        start = 8 + header_bytes
        return {name: _stored_tensor(name, entry, start, size) for name, entry in header.items()}
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(path, f"it is not a safetensors file: {error}", _EXPORT_AGAIN) from error


def _stored_tensor(name: str, entry: Mapping[str, Any], start: int, file_bytes: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not 0 <= begin <= end <= file_bytes - start:
        raise ValueError(f"tensor {name} lies outside the file")
    item_bytes = ITEM_BYTES.get(entry["dtype"])
    if item_bytes is not None and math.prod(shape) * item_bytes != end - begin:
        raise ValueError(f"tensor {name} has {end - begin} bytes for shape {shape}")
    return StoredTensor(name=name, dtype=entry["dtype"], shape=shape, offset=start + begin, length=end - begin)
