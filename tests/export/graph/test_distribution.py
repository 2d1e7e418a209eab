"""VAE encoders that give a distribution: their mean alone is kept, and composed to a graph from pixels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from costroute_rt.engines.bundle.onnx_model import graph_spec
from costroute_rt.export.graph.compose import compose_encode
from costroute_rt.export.graph.distribution import keep_mean


def encoder(outputs: int) -> onnx.ModelProto:
    """sample f32[b,3,h,w] -> f32[b,outputs,h/2,w/2]: means of cells of 2x2 pixels, channel after channel."""
    weights = np.zeros((outputs, 3, 2, 2), np.float32)
    for channel in range(outputs):
        weights[channel, channel % 3] = 0.25 * (1 + channel)
    nodes = [helper.make_node("Conv", ["sample", "weights"], ["parameters"], strides=[2, 2])]
    sample = helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["batch", 3, "sample_height", "sample_width"])
    found = helper.make_tensor_value_info("parameters", TensorProto.FLOAT, ["batch", outputs, "h", "w"])
    graph = helper.make_graph(nodes, "encoder", [sample], [found], [onnx.numpy_helper.from_array(weights, "weights")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("outputs", [8, 4])
def test_the_composed_graph_gives_the_scaled_mean(outputs: int) -> None:
    model = encoder(outputs)
    keep_mean(model, 4)
    scale, shift = np.array([2.0, 4.0, 0.5, 1.0]), np.array([0.1, 0.2, -0.1, 0.0])
    composed = compose_encode(model, scale=scale, shift=shift)
    onnx.checker.check_model(composed)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    (found,) = ReferenceEvaluator(composed).run(None, {"pixels": pixels})
    cells = (pixels / 127.5 - 1).transpose(0, 3, 1, 2).reshape(2, 3, 2, 2, 3, 2).mean(axis=(3, 5))
    mean = np.stack([(1 + channel) * cells[:, channel % 3] for channel in range(4)], axis=1)
    np.testing.assert_allclose(found, (mean - shift.reshape(4, 1, 1)) / scale.reshape(4, 1, 1), rtol=1e-5, atol=1e-6)
    spec = graph_spec(composed)
    assert (spec.inputs["pixels"].dtype, spec.outputs["latent"].shape) == ("uint8", ("batch", 4, "height", "width"))
