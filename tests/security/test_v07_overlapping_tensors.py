"""V7: the tensors of a safetensors file fill it once, so that a small file cannot become large."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.error import BundleError
from tests.security.hostile_graph import copy_bundle, seal


def write(path: Path, header: str | dict[str, Any], data: bytes = b"") -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(begin: Any, end: Any, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


ONE = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
HEADERS: dict[str, tuple[Any, int]] = {
    "many names over the same bytes": ({f"t{index}": tensor(0, 400) for index in range(2500)}, 400),
    "overlap": ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12),
    "gap between": ({"a": tensor(0, 4), "b": tensor(8, 12)}, 12),
    "gap before": ({"a": tensor(4, 8)}, 8),
    "gap after": ({"a": tensor(0, 4)}, 8),
    "outside": ({"a": tensor(0, 4096)}, 8),
    "backwards": ({"a": tensor(8, 0, [2])}, 8),
    "name given twice": (f'{{"a": {ONE}, "a": {ONE}}}', 4),
    "float offsets": ({"a": tensor(0, 16.0, [4])}, 16),
    "negative zero": ('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [-0.0, 16]}}', 16),
    "boolean axis": ({"a": tensor(0, 16, [True, True, 4])}, 16),
    "boolean offset": ({"a": tensor(False, 4, [1])}, 4),
    "text in the shape": ({"a": tensor(0, 4, [-(10**30), "F32"])}, 4),
    "huge axis": ({"a": tensor(0, 0, [0, 10**30])}, 0),
    "huge axes of a kind that is not known": ({"a": tensor(0, 4, [10**400], "F4")}, 4),
    "many axes": ({"a": tensor(0, 4, [1] * 71)}, 4),
    "shape that is no list": ({"a": tensor(0, 4, {"0": 1})}, 4),
    "kind that is no text": ({"a": tensor(0, 4, [1], ["F32"])}, 4),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, 4),
    "other entries": ({"a": {**tensor(0, 4), "more": 1}}, 4),
    "nested": ("[" * 200_000, 0),
    "list": ("[]", 0),
    "number": ("1", 0),
    "tensor that is no object": ({"a": [0, 4]}, 4),
    "integer of 5,000 digits": ('{"a": ' + "9" * 5000 + "}", 0),
    "NaN": ('{"a": NaN}', 0),
}


@pytest.mark.parametrize(("header", "size"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_describe_the_file_is_refused(header: Any, size: int, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a safetensors file"):
        read_stored_tensors(write(tmp_path / "x.safetensors", header, bytes(size)))


def test_tensors_in_any_order_with_empty_ones_are_read(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": tensor(4, 8), "none": tensor(4, 4, [0, 3]), "a": tensor(0, 4, [])}
    found = read_stored_tensors(write(tmp_path / "x.safetensors", header, bytes(8)))
    start = (tmp_path / "x.safetensors").stat().st_size - 8
    assert {name: each.offset - start for name, each in found.items()} == {"b": 4, "none": 4, "a": 0}


@pytest.mark.parametrize("text", ["{" + " " * (17 << 20) + "}", json.dumps({str(n): tensor(0, 0, [0]) for n in range(100_001)})])
def test_a_large_header_is_refused_before_it_takes_memory(text: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"header is larger than 16 MiB|100000 tensors at most"):
        read_stored_tensors(write(tmp_path / "x.safetensors", text))


def test_a_bundle_with_overlapping_weights_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    root, name = copy_bundle(tiny_bundle, tmp_path), "vae/diffusion_pytorch_model.safetensors"
    data = (root / name).read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    copied = next(entry for key, entry in header.items() if key != "__metadata__")
    text = json.dumps({**header, "again": copied}).encode()
    (root / name).write_bytes(struct.pack("<Q", len(text)) + text + data[start:])
    seal(root, name)
    with pytest.raises(BundleError, match="overlaps another one"):
        Bundle.open(root)
