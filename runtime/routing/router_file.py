"""The two files of a router: checked JSON, and arrays in a safetensors file, without a library for either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.engines.bundle.section import Section, parse_section
from costroute_rt.error import BundleError, Reason

AnyArray = npt.NDArray[Any]

ROUTER_JSON, ROUTER_ARRAYS = "router.json", "router.safetensors"
_KINDS: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_ALIGNMENT = 8
_JSON_LIMIT_BYTES = 256 << 20


def router_error(path: Path, problem: str) -> BundleError:
    """About a router, or a file of it, that cannot be used."""
    return BundleError(path, problem, "fit it again, or get the bundle again", reason=Reason.ROUTER)


def write_arrays(path: Path, arrays: Mapping[str, AnyArray]) -> None:
    """Write a .safetensors file; float16 and float32 arrays only."""
    kinds = {dtype: name for name, dtype in _KINDS.items()}
    header: dict[str, Any] = {}
    at = 0
    for name, array in arrays.items():
        header[name] = {"dtype": kinds[array.dtype], "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Every array of a .safetensors file, as float32; raises BundleError where it is none, truncated, or holds NaN or infinity."""
    stored = read_stored_tensors(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise router_error(path, f"it cannot be read: {error.strerror or error}") from error
    arrays = {}
    for name, tensor in stored.items():
        kind = _KINDS.get(tensor.dtype)
        if kind is None or not all(isinstance(axis, int) and axis >= 0 for axis in tensor.shape):
            raise router_error(path, f"its array {name} is {tensor.dtype}{list(tensor.shape)}: expected F16 or F32")
        bytes_ = data[tensor.offset : tensor.offset + tensor.length]
        arrays[name] = np.frombuffer(bytes_, dtype=kind).reshape(tensor.shape).astype(np.float32)
        if not np.isfinite(arrays[name]).all():
            raise router_error(path, f"its array {name} holds numbers that are not finite")
    return arrays


def read_settings(path: Path) -> Section:
    """The JSON object in `path`; raises BundleError."""

    def fail(problem: str) -> Any:
        raise router_error(path, problem)

    try:
        if path.stat().st_size > _JSON_LIMIT_BYTES:
            fail(f"it is larger than {_JSON_LIMIT_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise router_error(path, f"it cannot be read: {error.strerror or error}") from error
    return parse_section(data, fail)
