"""Graphs rewritten to float16 compute the same, keep their edges, and keep float32 where it matters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from costroute_rt.engines.backends.half_precision import to_float16
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.bundle.bundle import Bundle

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def make_model(nodes: list[Any], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], **constants: np.ndarray) -> onnx.ModelProto:
    values = [[helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in side.items()] for side in (inputs, outputs)]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", *values, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def computed_in(model: onnx.ModelProto) -> dict[str, int]:
    """The type of each node's first output, by the operator; casts left out."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*inferred.value_info, *inferred.output, *inferred.input]}
    return {node.op_type: types[node.output[0]] for node in model.graph.node if node.op_type != "Cast"}


@pytest.mark.parametrize(
    "name", ["text_encoder/model", "unet/condition", "unet/guided_step", "unet_turbo/step", "vae/decode", "scorer/scorer"]
)
def test_a_graph_in_float16_computes_what_it_did(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    bundle, path = Bundle.open(tiny_bundle, verify=False), f"{name}.onnx"
    folder = shutil.copytree(tiny_bundle / path.split("/")[0], tmp_path / "graph")
    source = onnx.load(folder / Path(path).name, load_external_data=False)
    half = to_float16(source)
    (folder / "half.onnx").write_bytes(half.SerializeToString())
    onnx.checker.check_model(str(folder / "half.onnx"), full_check=True)
    assert [value.SerializeToString() for value in half.graph.input] == [value.SerializeToString() for value in source.graph.input]

    feeds = example_feeds(bundle, path, {"batch": 2, "batch_size": 2})
    sessions = [onnxruntime.InferenceSession(str(folder / file)) for file in (Path(path).name, "half.onnx")]
    for want, have in zip(*(session.run(None, feeds) for session in sessions), strict=True):
        assert have.dtype == want.dtype
        np.testing.assert_allclose(have, want, atol=1 if want.dtype == np.uint8 else 2e-2, rtol=1e-2)


def test_weights_stored_in_float16_are_used_as_they_are(tiny_bundle: Path) -> None:
    source = onnx.load(tiny_bundle / "unet/guided_step.onnx", load_external_data=False)
    stored = {tensor.name for tensor in source.graph.initializer if tensor.data_type == HALF}
    model = to_float16(source)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert all(node.input[1] in stored for node in convolutions)
    assert not [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in stored]


def test_the_linear_rule_keeps_every_bit(tiny_bundle: Path, tmp_path: Path) -> None:
    """What a step makes of latent, noise and earlier result does not go through float16, whatever its denoiser does."""
    bundle = Bundle.open(tiny_bundle, verify=False)
    shutil.copytree(tiny_bundle / "unet_turbo", tmp_path / "unet_turbo")  # onnx reads no weights that other tests have linked elsewhere
    model = to_float16(onnx.load(tmp_path / "unet_turbo/step.onnx"))
    feeds = example_feeds(bundle, "unet_turbo/step.onnx")
    feeds["row"] = np.array([1, 500, 3, 1, 0, 0.7, 0.3, 0.1, 0.1], np.float32)  # q = 0: the denoiser's output counts for nothing
    next_latent, denoised = run(model, **feeds)
    x, before, noise = (feeds[name] for name in ("latent", "denoised_before", "noise"))
    np.testing.assert_array_equal(denoised, x)
    np.testing.assert_allclose(next_latent, np.float32(0.7) * x + np.float32(0.3) * x + np.float32(0.1) * (before + noise), rtol=1e-6)


def test_norms_compute_in_float32_and_sums_stay_there() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("LayerNormalization", ["h", "scale"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Pow", ["r", "two"], ["p"]),
        helper.make_node("ReduceMean", ["p"], ["m"]),
        helper.make_node("Sub", ["m", "two"], ["y"]),
    ]
    constants = {"w": np.eye(4, dtype=np.float32), "scale": np.ones(4, np.float32), "two": np.float32(2)}
    model = to_float16(make_model(nodes, {"x": [3, 4]}, {"y": [1, 1]}, **constants))
    assert computed_in(model) == {
        "MatMul": HALF, "LayerNormalization": FLOAT, "Relu": HALF, "Pow": FLOAT, "ReduceMean": FLOAT, "Sub": FLOAT
    }  # fmt: skip


@pytest.mark.parametrize(("constant", "kind"), [(0.5, HALF), (-3e38, FLOAT), (1e-12, FLOAT), (70000.0, FLOAT)])
def test_a_constant_that_float16_cannot_hold_keeps_its_node_in_float32(constant: float, kind: int) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "c"], ["y"])]
    model = to_float16(make_model(nodes, {"x": [2, 4]}, {"y": [2, 4]}, w=np.eye(4, dtype=np.float32), c=np.array([constant], np.float32)))
    assert computed_in(model)["MatMul"] == HALF
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*inferred.value_info, *inferred.output]}
    assert next(types[node.output[0]] for node in model.graph.node if node.op_type == "Add") == kind


def test_the_numbers_of_a_resize_stay_float32() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Resize", ["h", "", "scales"], ["y"], mode="nearest"),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    model = to_float16(make_model(nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 2, 8, 8]}, w=np.ones((2, 2, 1, 1), np.float32) / 4, scales=scales))
    (found,) = run(model, x=np.ones((1, 2, 4, 4), np.float32))
    np.testing.assert_array_equal(found, np.full((1, 2, 8, 8), 0.5, np.float32))
    assert computed_in(model)["Resize"] == HALF


def test_a_subgraph_finds_what_it_takes_from_outside_in_float32() -> None:
    branch = [
        helper.make_graph([helper.make_node(op, ["h"], [f"{op}_out"])], op, [], [helper.make_tensor_value_info(f"{op}_out", FLOAT, [2, 4])])
        for op in ("Neg", "Identity")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("If", ["condition"], ["y"], then_branch=branch[0], else_branch=branch[1]),
    ]
    model = to_float16(make_model(nodes, {"x": [2, 4]}, {"y": [2, 4]}, w=np.eye(4, dtype=np.float32), condition=np.array(True)))
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(run(model, x=x)[0], -x)
