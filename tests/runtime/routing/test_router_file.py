"""A router's arrays: written and read exactly, and which damaged files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BundleError
from costroute_rt.routing.router_file import read_arrays, write_arrays

DATA = np.arange(8, dtype="<f4").tobytes()


def entry(begin: int, end: int, shape: list[Any] | None = None, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def file_bytes(header: Any, data: bytes = DATA) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


DAMAGED: dict[str, bytes] = {
    "overlapping arrays": file_bytes({"a": entry(0, 20), "b": entry(16, 32)}),
    "two arrays in one place": file_bytes({"a": entry(0, 32), "b": entry(0, 32)}),
    "a gap": file_bytes({"a": entry(0, 12), "b": entry(16, 32)}),
    "a gap at the start": file_bytes({"a": entry(4, 32)}),
    "bytes after the last array": file_bytes({"a": entry(0, 16)}),
    "a file cut short": file_bytes({"a": entry(0, 32)}, DATA[:-4]),
    "an array outside the file": file_bytes({"a": entry(0, 64)}),
    "offsets the wrong way round": file_bytes({"a": entry(32, 0, [0])}),
    "a shape that does not fit": file_bytes({"a": entry(0, 32, [7])}),
    "a negative axis": file_bytes({"a": entry(0, 32, [-8])}),
    "an axis that is no whole number": file_bytes({"a": entry(0, 32, [8.0])}),
    "a shape that overflows": file_bytes({"a": entry(0, 32, [2**62, 2**62])}),
    "whole numbers": file_bytes({"a": entry(0, 32, [4], "I64")}),
    "doubles": file_bytes({"a": entry(0, 32, [4], "F64")}),
    "a kind NumPy does not have": file_bytes({"a": entry(0, 32, [16], "BF16")}),
    "an unknown kind": file_bytes({"a": entry(0, 32, [4], "X9")}),
    "a header that is no JSON": file_bytes(b"{nonsense"),
    "a header that is a list": file_bytes(b"[]"),
    "a header that is not UTF-8": file_bytes(b"\xff\xfe{}"),
    "deeply nested JSON": file_bytes(b"[" * 20_000),
    "a header longer than the file": (1 << 40).to_bytes(8, "little") + DATA,
    "an empty file": b"",
    "NaN": file_bytes({"a": entry(0, 32)}, np.full(8, np.nan, dtype="<f4").tobytes()),
    "infinity": file_bytes({"a": entry(0, 32, [16], "F16")}, np.full(16, -np.inf, dtype="<f2").tobytes()),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_bundle_errors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "router.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"router\.safetensors"):
        read_arrays(path)


def test_a_missing_file_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        read_arrays(tmp_path / "router.safetensors")


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_arrays_are_read_as_they_were_written(kind: type[np.floating[Any]], tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(kind)
    written = {"plain": values, "transposed": values.T, "every other": values[::2], "one": values[0, 0].reshape(()), "none": values[:0]}
    write_arrays(tmp_path / "arrays", written)
    read = read_arrays(tmp_path / "arrays")
    assert read.keys() == written.keys()
    for name, array in written.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], array, err_msg=name)


def test_files_of_other_writers_are_read_whatever_the_order_of_their_header(tmp_path: Path) -> None:
    path = tmp_path / "arrays"
    path.write_bytes(file_bytes({"__metadata__": {"by": "hand"}, "b": entry(16, 32), "a": entry(0, 16)}))
    assert {name: array.tolist() for name, array in read_arrays(path).items()} == {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}
