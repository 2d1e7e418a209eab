"""Graphs with int8 weights: what is quantised, what the graphs compute, in the reference and on the backends."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest

from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.spec import make_spec
from costroute_rt.engines.building.gate import compare
from costroute_rt.engines.bundle.onnx_scan import read_external_tensors
from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.error import BackendError, BundleError
from costroute_rt.export.checkpoint.tensor.number import read_tensor
from costroute_rt.export.quantisation.component import Quantised, quantise_graphs
from tests.export.quantisation.product_network import FLOATS, HIDDEN, WIDTH, write_network
from tests.tensor_file import write_safetensors

INT8 = "weights-int8.safetensors"
FEEDS = {"x": np.random.default_rng(1).standard_normal((9, WIDTH)).astype(np.float32)}


def quantised(folder: Path, dtype: str = "F16") -> Quantised:
    """The graphs, saved beside their weights under the names USE.onnx and USE-int8.onnx."""
    graphs = write_network(folder, dtype)
    made = quantise_graphs(graphs, folder, INT8)
    for use, model in graphs.items():
        (folder / f"{use}.onnx").write_bytes(model.SerializeToString())
        (folder / f"{use}-int8.onnx").write_bytes(made.graphs[use].SerializeToString())
    return made


def reference(path: Path) -> dict[str, np.ndarray]:
    with OnnxRuntimeBackend().open_reference(path) as engine:
        return {name: engine.to_host(value) for name, value in engine.run(FEEDS).items()}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_only_large_weights_that_products_alone_read_are_int8(tmp_path: Path, dtype: str) -> None:
    made = quantised(tmp_path, dtype)
    stored = read_stored_tensors(tmp_path / INT8)
    assert {name: (each.dtype, each.shape) for name, each in stored.items()} == {
        "up/int8": ("I8", (WIDTH, HIDDEN)),
        "up/scale": ("F32", (HIDDEN,)),
        "down/int8": ("I8", (HIDDEN, WIDTH)),
        "down/scale": ("F32", (WIDTH,)),
        "gemm/int8": ("I8", (WIDTH, WIDTH)),
        "gemm/scale": ("F32", (WIDTH,)),
    }
    assert (made.matrices, made.weights) == (3, (FLOATS, INT8))
    used = {use: read_external_tensors(model.SerializeToString()) for use, model in made.graphs.items()}
    assert {each.location for each in used["other"]} == {INT8}
    assert made.weights_bytes == sum({(each.location, each.offset): each.length for each in used["step"]}.values())
    onnx.checker.check_model(str(tmp_path / "step-int8.onnx"), full_check=True)


def test_the_graph_computes_with_the_rounded_weights(tmp_path: Path) -> None:
    quantised(tmp_path)
    stored, floats = read_stored_tensors(tmp_path / INT8), read_stored_tensors(tmp_path / FLOATS)["up"]
    scale = read_tensor(tmp_path / INT8, stored["up/scale"])
    raw = (tmp_path / INT8).read_bytes()[stored["up/int8"].offset :][: stored["up/int8"].length]
    weight = np.frombuffer(raw, np.int8).reshape(WIDTH, HIDDEN) * scale
    assert (np.abs(weight - read_tensor(tmp_path / FLOATS, floats).T) <= 0.5001 * scale).all()
    np.testing.assert_allclose(reference(tmp_path / "other-int8.onnx")["y"], FEEDS["x"] @ weight, rtol=1e-4, atol=1e-5)
    exact, found = (reference(tmp_path / f"step{end}.onnx")["y"] for end in ("", "-int8"))
    assert 0 < np.abs(found - exact).std() < 0.02 * exact.std()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_backends_keep_int8_and_stay_near_the_graph(tmp_path: Path, name: str) -> None:
    try:
        backend = get_backend(name)
    except BackendError as error:
        pytest.skip(str(error))
    quantised(tmp_path)
    sizes = []
    for end in ("", "-int8"):
        folder = tmp_path / f"engine{end}"
        folder.mkdir()
        backend.build(tmp_path / f"other{end}.onnx", folder, make_spec(threads=1))
        sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    with backend.open(tmp_path / "engine-int8", make_spec(threads=1)) as engine:
        found = {key: engine.to_host(value) for key, value in engine.run(FEEDS).items()}
    assert compare(reference(tmp_path / "other-int8.onnx"), found, "int8")[2] is None
    assert sizes[1] < 0.7 * sizes[0]  # weights of 16 bits have twice the bytes, and more where the library makes float32 of them


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    count, side = 24, 256
    rng = np.random.default_rng(0)
    write_safetensors(tmp_path / FLOATS, {f"w{index}": rng.standard_normal((side, side)).astype(np.float32) for index in range(count)})
    stored, nodes, tensors = read_stored_tensors(tmp_path / FLOATS), [], []
    for index in range(count):
        each = stored[f"w{index}"]
        tensor = onnx.TensorProto(name=each.name, data_type=1, dims=each.shape, data_location=onnx.TensorProto.EXTERNAL)
        for key, value in (("location", FLOATS), ("offset", each.offset), ("length", each.length)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        nodes.append(onnx.helper.make_node("MatMul", [f"x{index}", each.name], [f"x{index + 1}"]))
    values = [onnx.helper.make_tensor_value_info(name, 1, ["rows", side]) for name in ("x0", f"x{count}")]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", values[:1], values[1:], tensors))
    tracemalloc.start()
    try:
        assert quantise_graphs({"step": model}, tmp_path, INT8).matrices == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 4 * side * side < count * 4 * side * side / 2


def test_what_cannot_be_quantised_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    graphs = write_network(tmp_path, "F32")
    cut = tmp_path / FLOATS
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 4])
    with pytest.raises(BundleError, match="shorter"):
        quantise_graphs(graphs, tmp_path, INT8)
    assert [path.name for path in tmp_path.iterdir()] == [FLOATS]
    with pytest.raises(BundleError, match="no matrix product that is large enough"):
        quantise_graphs({"step": onnx.ModelProto()}, tmp_path, INT8)
