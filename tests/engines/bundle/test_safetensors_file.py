"""The headers of safetensors files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.error import BundleError


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05\0\0",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 63) + b'{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4096]}}',
        struct.pack("<Q", 60) + b'{"a": {"dtype": "F16", "shape": [3], "data_offsets": [0, 4]}}' + b"1234",
    ],
)
def test_file_that_is_no_safetensors_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a safetensors file"):
        read_stored_tensors(path)
