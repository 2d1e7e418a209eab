"""The changes to a model before OpenVINO compiles it: faster, and the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from costroute_rt.engines.backends.openvino import group_norm
from costroute_rt.engines.backends.openvino.group_norm import normalize_by_channel
from costroute_rt.engines.backends.openvino.upsampling import join_upsampling, transposed_kernel

ov = pytest.importorskip("openvino", reason="compiles models by OpenVINO, which is missing: pip install costroute-rt[openvino]")

NORM = """
    <ir_version: 8, opset_import: ["" : 17]>
    norm (float[batch, 12, HEIGHT, WIDTH] x) => (float[batch, 12, HEIGHT, WIDTH] y)
    <float[3] scale = {SCALE}, float[3] shift = {0, 0, 0}, int64[3] joined = {JOINED}> {
        groups = Reshape(x, joined)
        normal = InstanceNormalization<epsilon = 0.001>(groups, scale, shift)
        size = Shape(x)
        y = Reshape(normal, size)
    }
"""
UPSAMPLING = """
    <ir_version: 8, opset_import: ["" : 17]>
    up (float[1, 4, HEIGHT, WIDTH] x, float[6, 4, 3, 3] constant) => (float[1, 6, high, wide] y)
    <float[4] scales = {1, 1, BY, BY}> {
        large = Resize<mode = "nearest", nearest_mode = "floor", coordinate_transformation_mode = "MODE">(x, , scales)
        y = Conv<kernel_shape = [3, 3], pads = [PAD, PAD, PAD, PAD]>(large, kernel)
    }
"""
KERNEL = np.random.default_rng(1).standard_normal((6, 4, 3, 3), dtype=np.float32)


def read(text: str, folder: Path, **values: object) -> Any:
    """A model of OpenVINO; values: what stands for the words in capital letters."""
    for name, value in {"MODE": "asymmetric", "JOINED": "0, 3, -1", "SCALE": "1, 1, 1", **values}.items():
        text = text.replace(name, str(value))
    graph = onnx.parser.parse_model(text)
    for given in [given for given in graph.graph.input if given.name == "constant"]:
        graph.graph.input.remove(given)
        graph.graph.initializer.append(onnx.numpy_helper.from_array(KERNEL, "kernel"))
    onnx.save(graph, folder / "model.onnx")
    return ov.Core().read_model(folder / "model.onnx")


def run(model: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled([x])[0])


@pytest.mark.parametrize("size", [(5, 7), ("high", "wide")])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_a_normalization_by_channel_is_that_of_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[object, object], offset: float
) -> None:
    monkeypatch.setattr(group_norm, "LARGE", 1)
    spread = np.arange(1, 13, dtype=np.float32)[:, None, None]
    x = offset + spread * np.random.default_rng(0).standard_normal((2, 12, 5, 7), dtype=np.float32)
    model = read(NORM, tmp_path, HEIGHT=size[0], WIDTH=size[1])
    assert normalize_by_channel(ov, model) == 1
    assert not any(each.get_type_name() == "MVN" for each in model.get_ops())
    groups = x.astype(np.float64).reshape(2, 3, -1)
    expected = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 0.001)
    np.testing.assert_allclose(run(model, x), expected.reshape(x.shape), atol=1e-4)


@pytest.mark.parametrize(
    "words",
    [{"SCALE": "1, 2, 1"}, {"HEIGHT": 16, "WIDTH": 16}, {"JOINED": "-1, 3, 128"}],
    ids=["a scale of groups", "a small image", "groups of other numbers"],
)
def test_other_normalizations_are_left_alone(tmp_path: Path, words: dict[str, object]) -> None:
    model = read(NORM.replace("batch", "1"), tmp_path, **{"HEIGHT": 256, "WIDTH": 256, **words})
    assert normalize_by_channel(ov, model) == 0


def test_a_doubled_image_and_its_convolution_are_one_transposed_convolution(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 5, 7), dtype=np.float32)
    words = {"HEIGHT": 5, "WIDTH": 7, "BY": 2, "PAD": 1}
    expected, model = run(read(UPSAMPLING, tmp_path, **words), x), read(UPSAMPLING, tmp_path, **words)
    assert join_upsampling(ov, model) == 1
    assert {"Convolution", "Interpolate"}.isdisjoint(each.get_type_name() for each in model.get_ops())
    np.testing.assert_allclose(run(model, x), expected, atol=1e-5)


@pytest.mark.parametrize(
    "words",
    [{"BY": 3}, {"PAD": 0}, {"HEIGHT": "high"}, {"MODE": "align_corners"}],
    ids=["three times", "no padding", "any size", "other pixels"],
)
def test_other_upsampling_is_left_alone(tmp_path: Path, words: dict[str, object]) -> None:
    model = read(UPSAMPLING, tmp_path, **{"HEIGHT": 5, "WIDTH": 7, "BY": 2, "PAD": 1, **words})
    assert join_upsampling(ov, model) == 0


def test_a_doubled_image_that_something_else_reads_too_is_left_alone(tmp_path: Path) -> None:
    model = read(UPSAMPLING, tmp_path, HEIGHT=5, WIDTH=7, BY=2, PAD=1)
    doubled = next(each for each in model.get_ops() if each.get_type_name() == "Interpolate")
    model.add_results([ov.opset13.result(doubled)])
    assert join_upsampling(ov, model) == 0


def test_the_transposed_kernel_keeps_the_sum_of_all_weights_for_each_pixel() -> None:
    turned = transposed_kernel(KERNEL)
    assert turned.shape == (4, 6, 4, 4)
    assert turned.dtype == np.float32
    for row in (0, 1):  # an output pixel reads every other row and column of the kernel
        for column in (0, 1):
            np.testing.assert_allclose(turned[:, :, row::2, column::2].sum((2, 3)), KERNEL.sum((2, 3)).T, atol=1e-5)
