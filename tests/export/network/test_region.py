"""Initialisers that refer to regions of weight files, in every form in which a parameter may be stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Network, Region
from costroute_rt.export.network.region import point_weights
from tests.tensor_file import write_safetensors

onnx = pytest.importorskip("onnx", reason="graphs are written with onnx, which is missing: pip install costroute-rt[export]")
ort = pytest.importorskip("onnxruntime", reason="graphs are run by ONNX Runtime, which is missing: pip install costroute-rt[export]")

SHAPES = {"plain.weight": (6, 4), "half.weight": (4, 6), "brain.weight": (6, 4), "turned.weight": (4, 6), "rows.weight": (6, 4)}
SHAPES |= {"conv.weight": (4, 6), "bias": (6,)}


def write_network(folder: Path) -> tuple[Network, dict[str, np.ndarray]]:
    """Parameters of which one is in a second file, one stored transposed, one some rows of another matrix, one a convolution of 1x1."""
    rng = np.random.default_rng(0)
    values = {name: rng.integers(-8, 8, shape).astype(np.float32) / 4 for name, shape in SHAPES.items()}  # exact in every dtype
    fused = np.concatenate([values["rows.weight"] + 1, values["rows.weight"], values["rows.weight"] - 1])
    stored = {
        ("a", "F32"): {"plain.weight": values["plain.weight"], "bias": values["bias"], "turned.weight": values["turned.weight"].T.copy()},
        ("b", "F16"): {"half.weight": values["half.weight"], "fused": fused, "conv.weight": values["conv.weight"][:, :, None, None]},
        ("c", "BF16"): {"brain.weight": values["brain.weight"]},
    }
    regions = {}
    for (stem, dtype), tensors in stored.items():
        file = write_safetensors(folder / f"{stem}.safetensors", tensors, dtype=dtype)
        for name, each in read_stored_tensors(file).items():
            regions[name] = Region(file=file, offset=each.offset, length=each.length, dtype=each.dtype, shape=each.shape)
    regions["turned.weight"] = replace(regions["turned.weight"], is_transposed=True)
    third = regions.pop("fused")
    regions["rows.weight"] = replace(third, offset=third.offset + third.length // 3, length=third.length // 3, shape=(6, 4))
    return Network(name="net", class_name="Net", config={}, weights=regions), values


def make_graph() -> onnx.ModelProto:
    """The product of all matrices, plus the bias."""
    names = [name for name in SHAPES if name != "bias"]
    nodes, last = [], "x"
    for index, name in enumerate(names):
        nodes.append(onnx.helper.make_node("MatMul", [last, name], [f"y{index}"]))
        last = f"y{index}"
    nodes.append(onnx.helper.make_node("Add", [last, "bias"], ["y"]))
    tensors = [onnx.TensorProto(name=name, data_type=1, dims=shape, data_location=1) for name, shape in SHAPES.items()]
    ports = [onnx.helper.make_tensor_value_info(name, 1, ["n", width]) for name, width in (("x", 6), ("y", 6))]
    graph = onnx.helper.make_graph(nodes, "g", ports[:1], ports[1:], initializer=tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)


def test_every_form_of_a_stored_parameter_is_read(tmp_path: Path) -> None:
    network, values = write_network(tmp_path)
    values["conv.weight"] = values["conv.weight"].reshape(SHAPES["conv.weight"])
    model = make_graph()
    point_weights(model, network, {file: file.name for file in network.files()})
    onnx.save(model, tmp_path / "graph.onnx")
    session = ort.InferenceSession(str(tmp_path / "graph.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
    wanted = np.linalg.multi_dot([x, *(values[name] for name in SHAPES if name != "bias")]) + values["bias"]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted, rtol=1e-5, atol=1e-5)
    assert {tensor.external_data[0].value for tensor in model.graph.initializer} == {"a.safetensors", "b.safetensors", "c.safetensors"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"shape": (4, 6)}, r"its weights for net.plain.weight are F32\[4, 6\]: expected \[6, 4\]"),
        ({"is_transposed": True}, r"are F32\[6, 4\], transposed"),
        ({"length": 95}, r"are F32\[6, 4\]"),
        ({"dtype": "F64"}, r"are F64\[6, 4\]"),
        (None, "it has no weights for net.plain.weight"),
    ],
)
def test_regions_that_do_not_hold_a_parameter_are_refused(changes: dict[str, object] | None, problem: str, tmp_path: Path) -> None:
    network, _ = write_network(tmp_path)
    weights = dict(network.weights)
    region = weights.pop("plain.weight")
    if changes is not None:
        weights["plain.weight"] = replace(region, **changes)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=problem):
        point_weights(make_graph(), replace(network, weights=weights), {file: file.name for file in network.files()})
