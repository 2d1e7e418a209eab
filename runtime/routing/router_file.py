"""The two files of a router: checked JSON, and arrays in a safetensors file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from costroute_rt.engines.bundle.json_bound import check_json_size
from costroute_rt.engines.bundle.section import Section, parse_section
from costroute_rt.error import BundleError, Reason
from costroute_rt.regular_file import ReadFile, read_regular
from costroute_rt.routing.array import AnyArray, Float32Array

ROUTER_JSON, ROUTER_ARRAYS = "router.json", "router.safetensors"
_KINDS = (np.float16, np.float32)
_JSON_LIMIT_BYTES, _MOST_VALUES = 64 << 20, 4_000_000
_ARRAYS_LIMIT_BYTES = 256 << 20


def router_error(path: Path, problem: str) -> BundleError:
    """About a router, or a file of it, that cannot be used."""
    return BundleError(path, problem, "fit it again, or get the bundle again", reason=Reason.ROUTER)


def write_arrays(path: Path, arrays: Mapping[str, AnyArray]) -> None:
    """Writes a safetensors file of float16 and float32 arrays."""
    # Contiguous, because safetensors 0.8 saves the memory of others in the wrong order.
    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(path: Path, sha256: str | None = None) -> dict[str, Float32Array]:
    """Every array of a safetensors file, as float32.

    Raises BundleError for a damaged file, for NaN, infinity or other kinds of numbers, and for a file with another hash than `sha256`.
    """
    try:
        data = read_regular(path, _ARRAYS_LIMIT_BYTES)
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise router_error(path, f"it is not the file that {ROUTER_JSON} was written with")
        stored = load(data)
    except OSError as error:
        raise router_error(path, f"it cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise router_error(path, f"it is not a safetensors file: {error}") from error
    except KeyError as error:  # a kind of number that NumPy does not have
        raise router_error(path, f"it holds {error.args[0]}: expected F16 or F32") from error
    arrays = {}
    for name, array in stored.items():
        if array.dtype not in _KINDS:
            raise router_error(path, f"its array {name} holds {array.dtype}: expected F16 or F32")
        arrays[name] = array.astype(np.float32)
        if not np.isfinite(arrays[name]).all():
            raise router_error(path, f"its array {name} holds numbers that are not finite")
    return arrays


def read_settings(path: Path, read: ReadFile = read_regular) -> Section:
    """The JSON object in `path`, which `read` reads; raises BundleError."""

    def fail(problem: str) -> Any:
        raise router_error(path, problem)

    try:
        data = read(path, _JSON_LIMIT_BYTES)
        check_json_size(data, _MOST_VALUES)
    except OSError as error:
        raise router_error(path, f"it cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        fail(str(error))
    return parse_section(data, fail)
