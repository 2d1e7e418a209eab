"""Graphs, weight files and manifests with random changes: they open, or they are refused with our own error."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest_reader import parse_manifest
from costroute_rt.engines.bundle.onnx_file import read_graph_spec
from costroute_rt.engines.bundle.onnx_scan import read_external_tensors
from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.engines.bundle.section import parse_section
from costroute_rt.engines.bundle.size import fixed_axes, free_axes
from costroute_rt.error import BundleError

ROUNDS = 400
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, 10**30, 10**400, -(10**30), "", "x", "\0", "a/../b", "\ud800", "é" * 300, [], {},
    [[]], {"": {}}, [1, 2], [-1], ["a"], [True], [1.0, 2.0], [10**30, 0], [1] * 71, {"a": 1}, "f" * 64, "text_encoder", "\x1b[2J",
]  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, length = rng.randrange(len(changed) + 1), rng.choice([1, 2, 8, 100])
        kind = rng.randrange(5)
        if kind == 0:
            changed[at : at + 1] = bytes([rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])])
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = changed[at : at + length]
        elif kind == 3:
            changed[at:at] = rng.choice([b"\xff" * 10, b"\x80" * 12, b"\x0b", b"\x00", b"\x3a\x00", rng.randbytes(length)])
        else:
            del changed[at:]
    return bytes(changed)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Some entries replaced, removed, renamed or copied from elsewhere."""
    changed = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 2, 4])):
        found = list(places(changed))
        if not found:
            break
        container, key = rng.choice(found)
        kind = rng.randrange(5)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[str(rng.choice(VALUES))] = container.pop(key)
        elif kind == 2:
            other, place = rng.choice(found)
            with suppress(KeyError, IndexError):
                container[key] = copy.deepcopy(other[place])
        else:
            container[key] = copy.deepcopy(rng.choice(VALUES))
    return changed


def fail(problem: str) -> Any:
    raise BundleError(None, problem, "")


@pytest.mark.parametrize("name", ["vae/decode.onnx", "unet/step.onnx", "text_encoder/model.onnx"])
def test_graphs(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    data, accepted = (tiny_bundle / name).read_bytes(), 0
    for seed in range(ROUNDS):
        changed = mutate_bytes(data, random.Random(seed))
        (tmp_path / "g.onnx").write_bytes(changed)
        with suppress(ValueError):
            read_graph_spec(tmp_path / "g.onnx")
        with suppress(ValueError):
            read_external_tensors(changed)
            accepted += 1
    assert 0 < accepted < ROUNDS


@pytest.mark.parametrize("change", [mutate_bytes, None])
def test_weight_files(tiny_bundle: Path, tmp_path: Path, change: Callable[..., bytes] | None) -> None:
    data, accepted = (tiny_bundle / "vae/diffusion_pytorch_model.safetensors").read_bytes(), 0
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        text = json.dumps(mutate_json(header, rng)).encode()
        changed = change(data[: start + 64], rng) + data[start + 64 :] if change else struct.pack("<Q", len(text)) + text + data[start:]
        (tmp_path / "x.safetensors").write_bytes(changed)
        with suppress(BundleError):
            read_stored_tensors(tmp_path / "x.safetensors")
            accepted += 1
    assert 0 < accepted < ROUNDS


def test_manifests(tiny_bundle: Path) -> None:
    data, bundle, accepted = (tiny_bundle / "manifest.json").read_bytes(), Bundle.open(tiny_bundle), 0
    manifest = json.loads(data)
    for seed in range(2 * ROUNDS):
        rng = random.Random(seed)
        changed = json.dumps(mutate_json(manifest, rng)).encode() if seed % 4 else mutate_bytes(data, rng)
        with suppress(BundleError):
            parts = parse_manifest(parse_section(changed, fail))
            made = Bundle(root=bundle.root, manifest_sha256="", **parts)
            fixed_axes(made)
            free_axes(made)
            accepted += 1
    assert 0 < accepted < 2 * ROUNDS
