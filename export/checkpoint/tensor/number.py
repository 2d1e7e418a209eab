"""Numbers of safetensors files as NumPy arrays of float32, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.safetensors_file import StoredTensor
from costroute_rt.error import BundleError
from costroute_rt.regular_file import open_regular

READABLE = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32"}
"""Usual names of the dtypes that can be read. Whole numbers are those of kohya's alpha where it was not given."""
_KINDS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4"}
_BLOCK_BYTES = 4 << 20
_CHANGED = "leave the file as it is during the export"


def to_float32(data: bytes, dtype: str) -> npt.NDArray[np.float32]:
    """float32[values] of stored little-endian numbers; an array of its own, which may be changed."""
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):
        return np.frombuffer(data, _KINDS[dtype]).astype("<f4")


def from_float32(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """The values rounded to the nearest of a stored dtype (F16, BF16 or F32), ties to even; what is too large becomes infinite."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, "<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    with np.errstate(over="ignore"):
        return values.astype(_KINDS[dtype])


def read_tensor(path: Path, tensor: StoredTensor) -> npt.NDArray[np.float32]:
    """float32 of the tensor's shape; raises BundleError if the file cannot be read or has become shorter."""
    with open_weights(path) as file:
        return to_float32(read_bytes(file, path, tensor.offset, tensor.length), tensor.dtype).reshape(tensor.shape)


def open_weights(path: Path) -> BinaryIO:
    """The file, open for reading; raises BundleError."""
    try:
        return open_regular(path)
    except OSError as error:
        raise BundleError(path, f"it cannot be read: {error.strerror or error}", _CHANGED) from error


def read_bytes(file: BinaryIO, path: Path, offset: int, length: int) -> bytes:
    """These bytes of an open file; raises BundleError if it cannot be read or has become shorter."""
    try:
        file.seek(offset)
        data = file.read(length)
    except OSError as error:
        raise BundleError(path, f"it cannot be read: {error.strerror or error}", _CHANGED) from error
    if len(data) != length:
        raise BundleError(path, "it has become shorter since it was checked", _CHANGED)
    return data


def read_blocks(file: BinaryIO, path: Path, offset: int, length: int) -> Iterator[bytes]:
    """These bytes of an open file in blocks of a few MiB, none of which cuts a number in two."""
    for start in range(0, length, _BLOCK_BYTES):
        yield read_bytes(file, path, offset + start, min(_BLOCK_BYTES, length - start))
