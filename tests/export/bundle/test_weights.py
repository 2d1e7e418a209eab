"""Weights in a bundle: links to the user's files, or copies of what a network needs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from costroute_rt.error import BundleError
from costroute_rt.export.bundle import weights as module
from costroute_rt.export.bundle.tensor_file import copy_regions
from costroute_rt.export.bundle.weights import Placed, place_weights
from costroute_rt.export.checkpoint.source.network import Network, Region
from tests.export.bundle.tiny_source import make_weights, write_source

UNET_BYTES = sum(array.nbytes for array in make_weights()["unet"].values())


def read(network: Network) -> dict[str, np.ndarray]:
    """The weights at the network's regions."""
    return {
        name: np.frombuffer(region.file.read_bytes()[region.offset : region.offset + region.length], "<f2").reshape(region.shape)
        for name, region in network.weights.items()
    }


def assert_same(network: Network) -> None:
    for name, array in make_weights()["unet"].items():
        np.testing.assert_array_equal(read(network)[name], array)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    (tmp_path / "bundle").mkdir()
    return write_source(tmp_path / "source").networks["unet"]


def test_a_blob_of_a_hub_is_linked_without_its_extension(network: Network, tmp_path: Path) -> None:
    blob = network.files()[0].rename(tmp_path / "4f5a")
    found = replace(network, weights={name: replace(region, file=blob) for name, region in network.weights.items()})
    moved, placed = place_weights(found, tmp_path / "bundle", copies=False, own=tmp_path / "work")
    assert placed.linked_bytes == UNET_BYTES
    assert moved.files() == (tmp_path / "bundle" / "weights.safetensors",)


def test_a_file_is_linked_where_the_disk_can(network: Network, tmp_path: Path) -> None:
    moved, placed = place_weights(network, tmp_path / "bundle", copies=False, own=tmp_path / "work")
    assert placed == Placed(written_bytes=0, linked_bytes=UNET_BYTES)
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["weights.safetensors"]
    assert os.path.samefile(moved.files()[0], network.files()[0])
    assert_same(moved)


@pytest.mark.parametrize("how", ["asked", "another disk"])
def test_copies_hold_the_tensors_of_the_network_alone(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(module, "_CLONE", 0)  # no request that a file system knows
    counted: list[int] = []
    moved, placed = place_weights(network, tmp_path / "bundle", copies=how == "asked", own=tmp_path / "work", on_bytes=counted.append)
    stored = load_file(moved.files()[0])
    assert stored.keys() == network.weights.keys()
    assert sum(counted) == UNET_BYTES
    assert placed == Placed(written_bytes=moved.files()[0].stat().st_size)
    assert_same(moved)


def test_a_file_that_is_no_safetensors_is_copied(network: Network, tmp_path: Path) -> None:
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"PK\x03\x04" + b"\0" * 60 + network.files()[0].read_bytes())
    shifted = {name: replace(region, file=pickle, offset=region.offset + 64) for name, region in network.weights.items()}
    moved, placed = place_weights(replace(network, weights=shifted), tmp_path / "bundle", copies=False, own=tmp_path / "work")
    assert placed.linked_bytes == 0
    assert_same(moved)


def test_files_made_for_the_export_are_linked_even_into_copies(network: Network, tmp_path: Path) -> None:
    own = tmp_path / "work" / "fused.safetensors"
    own.parent.mkdir()
    changed = copy_regions(own, {"first": network.weights["first"]})
    mixed = replace(network, weights={**network.weights, **changed})
    moved, placed = place_weights(mixed, tmp_path / "bundle", copies=True, own=own.parent)
    assert {path.name for path in moved.files()} == {"weights.safetensors", "weights-copy.safetensors"}
    assert placed.linked_bytes == 0
    assert_same(moved)


def test_several_names_of_a_region_are_stored_once(network: Network, tmp_path: Path) -> None:
    first = network.weights["first"]
    made = copy_regions(tmp_path / "t.safetensors", {"a": first, "b": first})
    assert made["a"] == made["b"]
    assert list(load_file(tmp_path / "t.safetensors")) == ["a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 1 << 20}, "ends before its last tensor"),
        ({"shape": (3, 3)}, r"576 bytes cannot have the shape \[3, 3\] in F16"),
        ({"file": Path("missing.safetensors")}, "cannot be read: No such file"),
    ],
)
def test_a_region_that_is_not_there_is_refused(network: Network, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        copy_regions(tmp_path / "t.safetensors", {"first": replace(network.weights["first"], **change)})


def test_regions_of_mixed_dtypes_at_odd_offsets_are_copied(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(range(64)))
    half = Region(file=tmp_path / "raw", offset=1, length=6, dtype="BF16", shape=(3,))
    single = Region(file=tmp_path / "raw", offset=9, length=8, dtype="F32", shape=(2,))
    made = copy_regions(tmp_path / "t.safetensors", {"half": half, "single": single})
    data = (tmp_path / "t.safetensors").read_bytes()
    assert data[made["half"].offset :][:6] == bytes(range(1, 7))
    assert data[made["single"].offset :][:8] == bytes(range(9, 17))
