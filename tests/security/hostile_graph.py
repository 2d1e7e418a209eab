"""Graphs as an attacker writes them: bytes that the `onnx` package would not write, and networks that are put into a copy of a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

GRAPH = "vae/decode.onnx"
"""The graph that tests replace; its engine is ENGINE."""
ENGINE = "tiny/vae/decode"


def copy_bundle(source: Path, tmp_path: Path) -> Path:
    """A copy of a bundle to change."""
    return Path(shutil.copytree(source, tmp_path / "bundle"))


def seal(root: Path, *names: str) -> None:
    """Make manifest.json and manifest.sha256 agree with the files `names`, as one who made the bundle would."""
    manifest = json.loads((root / "manifest.json").read_text())
    for name in names:
        data = (root / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    data = json.dumps(manifest).encode()
    (root / "manifest.json").write_bytes(data)
    (root / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest())


def replace_graph(source: Path, tmp_path: Path, data: bytes) -> Path:
    """A copy of a bundle with another decoder under a right hash."""
    root = copy_bundle(source, tmp_path)
    (root / GRAPH).write_bytes(data)
    seal(root, GRAPH)
    return root


def varint(value: int, length: int = 0) -> bytes:
    """A number as protobuf writes it, in `length` bytes if that is more than it needs."""
    parts = bytearray()
    while value >= 128 or len(parts) + 1 < length:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def part(number: int, content: bytes | int, *, tag: int | None = None) -> bytes:
    """One field: a message or text, or an integer; tag: instead of the right one."""
    wire = 0 if isinstance(content, int) else 2
    head = varint(number << 3 | wire) if tag is None else varint(tag)
    return head + (varint(content) if isinstance(content, int) else varint(len(content)) + content)


def external(location: str, *, count: int = 4, tag_bits: int = 0) -> bytes:
    """A TensorProto float32[count] called w in another file; tag_bits: added to the tags of its external data."""
    entries = (("location", location), ("offset", "0"), ("length", str(4 * count)))
    data = b"".join(part(13, part(1, key.encode()) + part(2, value.encode()), tag=13 << 3 | 2 | tag_bits) for key, value in entries)
    return part(1, count) + part(2, 1) + part(8, b"w") + data + part(14, 1)


def model(graph: bytes, *more: bytes) -> bytes:
    """A ModelProto with operators of version 17; more: other fields of it."""
    return part(1, 8) + part(8, part(1, b"") + part(2, 17)) + part(7, graph) + b"".join(more)


def adds(weights: bytes, node: bytes = b"") -> bytes:
    """Fields of a GraphProto that computes y = x + w for float32[4]; weights: fields that hold w. node: a NodeProto before it."""
    add = part(1, b"x") + part(1, b"w") + part(2, b"y") + part(4, b"Add")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]).SerializeToString() for name in ("x", "y")]
    nodes = (part(1, node) if node else b"") + part(1, add)
    return nodes + part(2, b"g") + weights + part(11, value[0]) + part(12, value[1])


def decoder(nodes: Sequence[Any], constants: Sequence[tuple[str, Any]] = (), *, initializers: Sequence[Any] = ()) -> bytes:
    """A graph with the decoder's interface: `nodes` compute the float32 `level`, which becomes the value of every pixel."""
    shape = [
        helper.make_node("Shape", ["latent"], ["sizes"]),
        helper.make_node("Mul", ["sizes", "factors"], ["scaled"]),
        helper.make_node("Gather", ["scaled", "order"], ["lengths"]),
        helper.make_node("Slice", ["lengths", "zero", "three"], ["sides"]),
        helper.make_node("Concat", ["sides", "colours"], ["shape"], axis=0),
        helper.make_node("Cast", ["level"], ["byte"], to=TensorProto.UINT8),
        helper.make_node("Expand", ["byte", "shape"], ["pixels"]),
    ]
    numbers = {"factors": [1, 1, 16, 16], "order": [0, 2, 3, 1], "zero": [0], "three": [3], "colours": [3]}
    tensors = [onnx.numpy_helper.from_array(np.array(values, np.int64), name) for name, values in numbers.items()]
    tensors += [onnx.numpy_helper.from_array(np.asarray(values), name) for name, values in constants]
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", 4, "height", "width"])]
    outputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", "image_height", "image_width", 3])]
    graph = helper.make_graph([*nodes, *shape], "decoder", inputs, outputs, [*tensors, *initializers])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def loop(turns: str, *, inner: Sequence[Any] = ()) -> Any:
    """A Loop over `turns`, a name, that computes `level`; inner: nodes in its body."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["on_again"]), helper.make_node("Add", ["v", "one"], ["v_again"]), *inner],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on_again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_again", TensorProto.FLOAT, [1]),
        ],
    )
    return helper.make_node("Loop", [turns, "yes", "start"], ["level"], body=body)


LOOP_CONSTANTS: list[tuple[str, Any]] = [("yes", np.array(True)), ("start", np.zeros(1, np.float32)), ("one", np.ones(1, np.float32))]
