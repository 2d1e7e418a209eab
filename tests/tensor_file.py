"""Writes tensors as safetensors files and as torch's files, without torch and in dtypes that NumPy does not have."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Tensors = Mapping[str, np.ndarray[Any, Any]]
_NAMES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8", "int8": "I8", "bool": "BOOL"}


def write_safetensors(path: Path, tensors: Tensors, *, dtype: str | None = None, metadata: Mapping[str, str] | None = None) -> Path:
    """dtype: stores all tensors that are float32 as F16 or BF16; None as they are."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data, end = [], 0
    for name, tensor in tensors.items():
        kind, content = encode(tensor, dtype)
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [end, end + len(content)]}
        data.append(content)
        end += len(content)
    return write_raw(path, header, b"".join(data))


def write_raw(path: Path, header: Mapping[str, Any], data: bytes) -> Path:
    """A safetensors file of this header, padded with blanks as the safetensors package does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def encode(tensor: np.ndarray[Any, Any], dtype: str | None = None) -> tuple[str, bytes]:
    """Name of the dtype, and the bytes. BF16 is rounded toward zero."""
    if tensor.dtype == np.float32 and dtype == "BF16":
        return "BF16", (np.ascontiguousarray(tensor).view(np.uint32) >> 16).astype("<u2").tobytes()
    if tensor.dtype == np.float32 and dtype == "F16":
        tensor = tensor.astype(np.float16)
    return _NAMES[tensor.dtype.name], np.ascontiguousarray(tensor).tobytes()


def decode(content: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The tensor as float32."""
    if dtype == "BF16":
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(content, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32).reshape(shape)
