"""The attention of ONNX Runtime in engines, beside the standard operator that bundles have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from costroute_rt.engines.backends.onnxruntime.attention import use_multi_head_attention
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.spec import BuildSpec
from tests.tensor_file import write_safetensors

onnx = pytest.importorskip("onnx", reason="graphs are written with onnx, which is missing: pip install costroute-rt[test]")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install costroute-rt[cpu]")


def make_model(settings: str, inputs: str = "q, k, v") -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 23]>
        attention (float[batch, tokens, 8] x, float[batch, others, 8] k, float[batch, others, 8] v) => (float[batch, tokens, 8] y)
        {{
            q = MatMul (x, weight)
            y = Attention <{settings}> ({inputs})
        }}
    """)


@pytest.mark.parametrize("more", ["", ", is_causal = 1", ", scale = 0.25"])
def test_engines_compute_attention_by_onnxruntimes_own_operator(more: str, tmp_path: Path) -> None:
    model, folder = make_model("q_num_heads = 2, kv_num_heads = 2" + more), tmp_path / "built"
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    file = write_safetensors(tmp_path / "weights.safetensors", {"weight": weight})
    tensor = model.graph.initializer.add(name="weight", data_type=1, dims=(8, 8), data_location=1)
    places = {"location": file.name, "offset": file.stat().st_size - weight.nbytes, "length": weight.nbytes}
    for key, value in places.items():
        tensor.external_data.add(key=key, value=str(value))
    (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
    folder.mkdir()
    backend = OnnxRuntimeBackend()
    backend.build(tmp_path / "graph.onnx", folder, BuildSpec(threads=1))
    built = onnx.load(folder / "model.onnx", load_external_data=False)
    assert "MultiHeadAttention" in {node.op_type for node in built.graph.node}
    rng = np.random.default_rng(1)
    others = 5 if more == ", is_causal = 1" else 7
    feeds = {name: rng.standard_normal((2, tokens, 8)).astype("f4") for name, tokens in (("x", 5), ("k", others), ("v", others))}
    with backend.open(folder, BuildSpec(threads=1)) as engine, backend.open_reference(tmp_path / "graph.onnx") as reference:
        np.testing.assert_allclose(engine.run(feeds)["y"], reference.run(feeds)["y"], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "inputs"),
    [
        ("q_num_heads = 4, kv_num_heads = 2", "q, k, v"),
        ("q_num_heads = 2, kv_num_heads = 2", "q, k, v, mask"),
        ("softcap = 2.0", "q, k, v"),
    ],
)
def test_attention_of_other_kinds_stays(settings: str, inputs: str) -> None:
    assert use_multi_head_attention(make_model(settings, inputs).SerializeToString()) is None


def test_what_is_not_onnx_is_refused() -> None:
    data = make_model("q_num_heads = 2, kv_num_heads = 2").SerializeToString()
    for broken in (data[:-5], b"\x3a\x05abc", b"\xff" * 20):
        with pytest.raises(ValueError, match=r".+"):
            use_multi_head_attention(broken)
