"""W4: weights that are NaN or infinite are refused, also where whole numbers come out of the decoder."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.building.gate import unusable_output
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.finite import has_broken_number
from costroute_rt.engines.bundle.onnx_scan import read_external_tensors
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BundleError
from tests.security.hostile_graph import ENGINE, GRAPH, copy_bundle, decoder, replace_graph, seal

WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
EIGHT_BITS = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_broken_weight_of_the_decoder_is_refused(tiny_bundle: Path, tmp_path: Path, value: float, share: float) -> None:
    root = copy_bundle(tiny_bundle, tmp_path)
    data = bytearray((root / WEIGHTS).read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    at = start + int(share * (len(data) - start - 2)) // 2 * 2
    data[at : at + 2] = np.array(value, np.float16).tobytes()
    (root / WEIGHTS).write_bytes(data)
    seal(root, WEIGHTS)
    with pytest.raises(BundleError, match="NaN or infinite") as caught:
        Bundle.open(root)
    assert str(caught.value.path).endswith(WEIGHTS)
    if not share:
        return  # the first tensor is the encoder's
    bundle = Bundle.open(root, verify=False)
    with pytest.raises(BundleError, match="NaN or infinite"):
        build_engines(bundle, Store.open(tmp_path / "home"), [ENGINE], Setup(threads=1), measure=False)


@pytest.mark.parametrize("name", DTYPES)
def test_all_precisions_of_weights_are_searched(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    values = np.ones(1000, DTYPES[name])
    values[777] = np.nan
    root, kinds = copy_bundle(tiny_bundle, tmp_path), {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
    header = json.dumps({"w": {"dtype": kinds[name], "shape": [1000], "data_offsets": [0, values.nbytes]}}).encode()
    (root / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())
    kind = getattr(TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(name, name.upper()))
    tensor = TensorProto(name="w", data_type=kind, dims=[1000], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", Path(WEIGHTS).name), ("offset", 8 + len(header)), ("length", values.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    nodes = [helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT), helper.make_node("ReduceMax", ["f"], ["level"], keepdims=0)]
    (root / GRAPH).write_bytes(decoder(nodes, initializers=[tensor]))
    manifest = json.loads((root / "manifest.json").read_text())
    del manifest["components"]["vae"]["graphs"]["encode"]
    (root / "manifest.json").write_text(json.dumps(manifest))
    (root / "vae/encoder.onnx").unlink()
    manifest["files"].pop("vae/encoder.onnx")
    (root / "manifest.json").write_text(json.dumps(manifest))
    seal(root, WEIGHTS, GRAPH)
    with pytest.raises(BundleError, match=f"its {name} numbers from byte .* are NaN or infinite"):
        Bundle.open(root)


@pytest.mark.parametrize("name", [*DTYPES, *EIGHT_BITS])
def test_every_bit_pattern_counts_as_the_library_has_it(name: str) -> None:
    dtype = np.dtype(DTYPES.get(name) or getattr(ml_dtypes, name))
    if dtype.itemsize > 2:
        patterns = np.array([0, 1.5, -1.5, 3e38, np.inf, -np.inf, np.nan, -np.nan, 1e-45], np.float64).astype(dtype)
    else:
        patterns = np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype)
    for value in patterns[:: max(1, len(patterns) // 4096)]:
        number = np.array([value], dtype)
        with np.errstate(invalid="ignore"):
            as_float = number.astype(np.float64)[0]
        is_nan, is_infinite = bool(np.isnan(as_float)), bool(np.isinf(as_float))
        assert has_broken_number(number.tobytes(), name) == (is_nan or is_infinite)
        assert has_broken_number(number.tobytes(), name, allows_infinity=True) == is_nan


def test_whole_numbers_are_never_broken() -> None:
    assert not has_broken_number(b"\xff" * 64, "int64")
    assert not has_broken_number(b"\xff" * 64, "uint8")


@pytest.mark.parametrize("name", ["float16", "float32"])
@pytest.mark.parametrize("is_raw", [True, False])
def test_weights_in_the_graph_are_searched_too(name: str, is_raw: bool) -> None:
    values = np.array([1, np.nan], DTYPES[name])
    tensor = onnx.numpy_helper.from_array(values, "w")
    if not is_raw:
        tensor.ClearField("raw_data")
        if name == "float32":
            tensor.float_data[:] = values.tolist()
        else:
            tensor.int32_data[:] = values.view(np.uint16).tolist()
    with pytest.raises(ValueError, match="the tensor w holds NaN"):
        read_external_tensors(decoder([helper.make_node("ReduceMax", ["w"], ["level"])], initializers=[tensor]))


def test_a_small_mask_may_be_infinite_and_large_weights_may_not() -> None:
    node = helper.make_node("ReduceMax", ["w"], ["level"])
    assert read_external_tensors(decoder([node], [("w", np.full(77, -np.inf, np.float32))])) == []
    with pytest.raises(ValueError, match="NaN or infinity"):
        read_external_tensors(decoder([node], [("w", np.full(20_000, -np.inf, np.float32))]))


def test_finite_weights_that_make_nan_make_an_image_of_one_colour_which_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["w", "w"], ["large"]), helper.make_node("Sub", ["large", "large"], ["level"])]
    bundle = Bundle.open(replace_graph(tiny_bundle, tmp_path, decoder(nodes, [("w", np.full(1, 3e38, np.float32))])))
    with pytest.raises(BundleError, match=r"make pixels of vae/decode\.onnx the same everywhere"):
        build_engines(bundle, Store.open(tmp_path / "home"), [ENGINE], Setup(threads=1), measure=False)


def test_small_outputs_of_one_value_are_usable() -> None:
    assert unusable_output({"label": np.zeros(10, np.uint8), "score": np.zeros(1000, np.float32)}) is None
