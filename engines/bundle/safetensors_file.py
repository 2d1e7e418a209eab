"""Offsets of the tensors in a safetensors file, so that an ONNX graph can refer to them as external data.

As the format demands it, and the `safetensors` package checks it: the tensors fill the file without gaps and without overlaps.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.section import shorten, unique_names
from costroute_rt.error import BundleError
from costroute_rt.regular_file import open_regular

_MAX_HEADER_BYTES = 16 << 20
_MOST_TENSORS, _MOST_AXES, _LONGEST_AXIS = 100_000, 8, 1 << 40
ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
"""Bytes of one number, for the dtypes that a graph may refer to."""
_OTHER_BYTES = {"F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
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
    """The tensors of a safetensors file, by name; raises BundleError if it is not one."""
    return read_safetensors(path)[0]


def read_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a safetensors file by name, and its metadata; raises BundleError if it is not one."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if header_bytes > size - 8:
                raise ValueError(f"a header of {header_bytes} bytes")
            if header_bytes > _MAX_HEADER_BYTES:
                raise ValueError(f"its header is larger than {_MAX_HEADER_BYTES >> 20} MiB")
            header = json.loads(file.read(header_bytes), object_pairs_hook=unique_names)
        return _stored_tensors(header, 8 + header_bytes, size), _metadata(header)
    except (OSError, struct.error, ValueError, RecursionError) as error:
        raise BundleError(path, f"it is not a safetensors file: {error}", _EXPORT_AGAIN) from error


def _stored_tensors(header: object, start: int, size: int) -> dict[str, StoredTensor]:
    """header: as it was parsed. start, size: where the numbers begin and end, in bytes."""
    if not isinstance(header, dict) or len(header) > _MOST_TENSORS:
        raise ValueError(f"its header is not an object of {_MOST_TENSORS} tensors at most")
    tensors = {name: _stored_tensor(name, entry, start) for name, entry in header.items() if name != "__metadata__"}
    end = start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.length)):
        if tensor.offset != end:
            raise ValueError(f"tensor {shorten(tensor.name)} overlaps another one, or leaves a gap")
        end += tensor.length
    if end != size:
        raise ValueError(f"its tensors end after {end} bytes, the file after {size}")
    return tensors


def _metadata(header: Any) -> dict[str, str]:
    """The texts that a file has beside its tensors."""
    found = header.get("__metadata__", {})
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _stored_tensor(name: str, entry: object, start: int) -> StoredTensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"} or not isinstance(entry["dtype"], str):
        raise ValueError(f"tensor {shorten(name)} has not exactly dtype, shape and data_offsets")
    shape, offsets = _whole_numbers(entry["shape"]), _whole_numbers(entry["data_offsets"])
    if shape is None or len(shape) > _MOST_AXES or any(axis > _LONGEST_AXIS for axis in shape):
        raise ValueError(f"tensor {shorten(name)} has the shape {shorten(entry['shape'])}")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {shorten(name)} has the offsets {shorten(entry['data_offsets'])}")
    begin, end = offsets
    item_bytes = (ITEM_BYTES | _OTHER_BYTES).get(entry["dtype"])
    if item_bytes is not None and math.prod(shape) * item_bytes != end - begin:
        raise ValueError(f"tensor {shorten(name)} has {end - begin} bytes for shape {shape}")
    return StoredTensor(name=name, dtype=entry["dtype"], shape=shape, offset=start + begin, length=end - begin)


def _whole_numbers(values: Any) -> tuple[int, ...] | None:
    """A list of whole numbers that are not negative; None for anything else, such as 1.0 or true."""
    if not isinstance(values, list) or not all(type(each) is int and each >= 0 for each in values):
        return None
    return tuple(values)
