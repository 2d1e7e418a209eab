"""Graphs whose weights are references to safetensors files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.error import BundleError
from costroute_rt.export.graph.compose import save_graph
from costroute_rt.export.graph.weights import reference_weights

onnx = pytest.importorskip("onnx", reason="graphs are written with onnx, which is missing: pip install costroute-rt[export]")
ort = pytest.importorskip("onnxruntime", reason="graphs are run by ONNX Runtime, which is missing: pip install costroute-rt[export]")


def write_safetensors(path: Path, arrays: dict[str, Any], padding: int = 0) -> None:
    """Write a safetensors file without alignment, so that tensors may begin at odd offsets."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in arrays.items():
        kind = {"float16": "F16", "float32": "F32", "int64": "I64", "uint16": "BF16"}[str(array.dtype)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode() + b" " * padding
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in arrays.values()))


def make_arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(shape).astype(np.float16) for name, shape in {"linear": (8, 4), "square": (8, 8), "bias": (1, 64)}.items()
    }
    return arrays | {"wide": (rng.standard_normal((8, 8)) * 1e6).astype(np.float32), "ids": np.arange(5)}


def make_model(arrays: dict[str, Any]) -> Any:
    """y = x linear^T square wide * scale + bias, as an exporter writes it: float32, the Linear's transpose folded, a constant as a node."""
    constants = {
        "folded": arrays["linear"].T.astype(np.float32),
        "square": arrays["square"].astype(np.float32),
        "wide": arrays["wide"],
        "bias": arrays["bias"].astype(np.float32).reshape(8, 8),
        "scale": np.float32(1e-6),
    }
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[n, 4] x) => (float[m, 8] y)
        { a = MatMul (x, folded)  b = MatMul (a, square)  c = MatMul (b, wide)  d = Mul (c, scale)  y = Add (d, bias) }
    """)
    for name, value in constants.items():
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        if name == "square":
            model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=tensor))
        else:
            model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_weights_are_read_from_the_safetensors_file(padding: int, tmp_path: Path) -> None:
    arrays = make_arrays()
    weights = tmp_path / "model.safetensors"
    write_safetensors(weights, arrays, padding)
    model = make_model(arrays)
    report = reference_weights(model, [weights], base_dir=tmp_path)
    assert (report.referenced, report.referenced_bytes, report.inline_bytes) == (4, 64 + 128 + 128 + 256, 4)
    save_graph(model, tmp_path / "g.onnx")

    options = ort.SessionOptions()
    options.log_severity_level = 3  # else it warns that an optimised model is for this machine only
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = ort.InferenceSession(str(tmp_path / "g.onnx"), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    double = {name: array.astype(np.float64) for name, array in arrays.items()}
    expected = x @ double["linear"].T @ double["square"] @ double["wide"] * 1e-6 + double["bias"].reshape(8, 8)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-4)
    left = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert not left & {"Cast", "Transpose"}


def test_tensors_of_equal_content_are_matched_by_name(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    write_safetensors(weights, {name: np.ones(32, np.float16) for name in ("first", "second")})
    model = onnx.parser.parse_model(
        "<ir_version: 8, opset_import: ['' : 18]> g (float[32] x) => (float[32] y) { y = Mul (x, second) }".replace("'", '"')
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(32, np.float32), "second"))
    reference_weights(model, [weights], base_dir=tmp_path)
    (tensor,) = model.graph.initializer
    entries = {entry.key: entry.value for entry in tensor.external_data}
    assert int(entries["offset"]) == read_stored_tensors(weights)["second"].offset


def test_weights_may_be_in_several_files_and_dtypes(tmp_path: Path) -> None:
    """float16, bfloat16 and float32 tensors of two files, read back by ONNX Runtime."""
    arrays = make_arrays()
    upper = (np.random.default_rng(2).standard_normal(64).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    arrays["bias"] = (upper.astype(np.uint32) << 16).view(np.float32).reshape(1, 64)
    paths = [tmp_path / "model-1.safetensors", tmp_path / "model-2.safetensors"]
    write_safetensors(paths[0], {name: arrays[name] for name in ("linear", "wide")})
    write_safetensors(paths[1], {"square": arrays["square"], "bias": upper.reshape(1, 64)}, padding=1)
    model = make_model(arrays)
    assert reference_weights(model, paths, base_dir=tmp_path).referenced == 4
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["weights/bias/8x8"] == onnx.TensorProto.BFLOAT16
    save_graph(model, tmp_path / "g.onnx")
    session = ort.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    double = {name: array.astype(np.float64) for name, array in arrays.items()}
    expected = x @ double["linear"].T @ double["square"] @ double["wide"] * 1e-6 + double["bias"].reshape(8, 8)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-4)


def test_two_files_may_have_a_tensor_of_the_same_name(tmp_path: Path) -> None:
    first = np.arange(32, dtype=np.float32)
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for path, array in zip(paths, (first, first + 100), strict=True):
        write_safetensors(path, {"w": array})
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 18]> g () => (float[32] y) { y = Add (a, b) }')
    for name, array in (("a", first), ("b", first + 100)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    assert reference_weights(model, paths, base_dir=tmp_path).referenced_bytes == 2 * 128
    save_graph(model, tmp_path / "g.onnx")
    session = ort.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {})[0], 2 * first + 100)


def test_a_large_constant_that_equals_no_tensor_is_refused(tmp_path: Path) -> None:
    arrays = make_arrays()
    weights = tmp_path / "model.safetensors"
    write_safetensors(weights, arrays)
    model = make_model(arrays | {"wide": arrays["wide"] * 2})
    with pytest.raises(BundleError, match=r"constant wide \(float32\[8, 8\], 256 bytes\) equals no tensor"):
        reference_weights(model, [weights], base_dir=tmp_path, inline_limit_bytes=200)
