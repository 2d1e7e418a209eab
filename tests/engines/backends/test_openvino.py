"""What is OpenVINO's own: precision that is never its guess, devices by name, blobs that other machines and versions made."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto

from costroute_rt.engines.backends.openvino import backend as openvino_backend
from costroute_rt.engines.backends.openvino.backend import BLOB, INTERFACE, OpenVinoBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import BuildSpec, make_spec
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.lookup import engine_key
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.machine.memory import resident_bytes
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BackendError, ConfigError, EngineError
from tests.engines.conftest import build, relist

pytest.importorskip("openvino", reason="builds and runs engines by OpenVINO, which is missing: pip install costroute-rt[openvino]")


@pytest.fixture(scope="module")
def backend() -> OpenVinoBackend:
    return OpenVinoBackend()


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small engine; tests that change it copy it."""
    store = Store.open(tmp_path_factory.mktemp("openvino"))
    build(Bundle.open(tiny_bundle), store, Setup.of("openvino", threads=1), names=["tiny/base/condition"], measure=False)
    return store.engines()[0].path


def needs(precision: str, backend: OpenVinoBackend) -> None:
    try:
        backend.device(make_spec(precision=precision))
    except ConfigError as error:
        pytest.skip(str(error))


def test_half_the_bits_are_another_engine_that_passes_its_gate(tiny_bundle: Path, tmp_path: Path, backend: OpenVinoBackend) -> None:
    needs("bfloat16", backend)
    bundle, store, name = Bundle.open(tiny_bundle), Store.open(tmp_path), "tiny/base/guided_step"
    found = {}
    feeds = example_feeds(bundle, "unet/guided_step.onnx")
    setups = {each: Setup(backend="openvino", precision=each, threads=1) for each in ("float32", "bfloat16")}
    for precision, setup in setups.items():
        (report,) = build(bundle, store, setup, names=[name], measure=False)
        assert report.built
        with open_engine(bundle, store, name, setup) as engine:
            found[precision] = engine.run(feeds)["denoised"]
    keys = [engine_key(bundle, name, setup) for setup in setups.values()]
    assert {difference.field for difference in keys[0].differences(keys[1])} == {"precision", "options"}
    difference = np.abs(found["float32"] - found["bfloat16"]).max()
    assert 1e-4 < difference < 0.06 * max(1.0, np.abs(found["float32"]).max())


def test_a_precision_the_device_lacks_is_refused(backend: OpenVinoBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_core", SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"]))
    with pytest.raises(ConfigError, match="precision is 'bfloat16': expected one of float32, which cpu can"):
        backend.device(make_spec(precision="bfloat16"))


def test_a_device_that_settled_on_another_precision_is_an_error(
    folder: Path, backend: OpenVinoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_core", Stub(backend._core, INFERENCE_PRECISION_HINT=SimpleNamespace(get_type_name=lambda: "bf16")))
    with pytest.raises(BackendError, match="precision float32, found bf16 after opening"):
        backend.open(folder, make_spec(threads=1))


def test_another_device_than_the_requested_one_is_an_error(folder: Path, backend: OpenVinoBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_core", Stub(backend._core, EXECUTION_DEVICES=["GPU.0"]))
    with pytest.raises(BackendError, match="provider cpu, found gpu after opening"):
        backend.open(folder, make_spec(threads=1))


class Stub:
    """A core whose compiled models report given properties."""

    def __init__(self, core: Any, **properties: Any) -> None:
        self._core, self._properties = core, properties

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def import_model(self, *arguments: Any) -> SimpleNamespace:
        model = self._core.import_model(*arguments)
        return SimpleNamespace(get_property=lambda name: self._properties.get(name) or model.get_property(name))


def test_a_port_keeps_its_name_where_the_compiler_gives_it_another(tiny_bundle: Path, tmp_path: Path, backend: OpenVinoBackend) -> None:
    bundle, shapes = Bundle.open(tiny_bundle), {"batch": 1, "sequence": 8}
    backend.build(bundle.path(bundle.graph_path("text_encoder", "encode")), tmp_path, make_spec(threads=1, shapes=shapes))
    with backend.open(tmp_path, make_spec(threads=1)) as engine:
        assert engine.inputs["input_ids"].shape == (1, 8)
        assert engine.run({"input_ids": np.zeros((1, 8), np.int64)})["last_hidden_state"].shape[:2] == (1, 8)


@pytest.mark.parametrize("what", [b"ov=", b"isa="], ids=["version", "processor"])
def test_what_another_version_or_processor_compiled_is_refused(folder: Path, tmp_path: Path, backend: OpenVinoBackend, what: bytes) -> None:
    blob = (folder / BLOB).read_bytes()
    at = blob.find(what)
    if not 0 < at < 200:
        pytest.skip("this OpenVINO writes no such mark; the store's key alone keeps the engines apart")
    shutil.copy(folder / INTERFACE, tmp_path)
    (tmp_path / BLOB).write_bytes(blob[: at + len(what)] + b"X" + blob[at + len(what) + 1 :])
    with pytest.raises(EngineError, match=r"different runtime configuration.*build the engine again"):
        backend.open(tmp_path, make_spec(threads=1))


@pytest.mark.parametrize("provider", ["gpu", "npu"])
def test_a_missing_device_names_its_remedy(provider: str, folder: Path, backend: OpenVinoBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, what: str) -> None:
        raise RuntimeError("Exception from src/core.cpp:268:\nCannot load library: libOpenCL.so.1")

    monkeypatch.setattr(openvino_backend, "_found_devices", lambda: ("CPU",))
    monkeypatch.setattr(openvino_backend, "_core", lambda: SimpleNamespace(get_property=refuse))
    for use in (lambda: backend.device(make_spec(provider)), lambda: backend.open(folder, make_spec(provider, 1))):
        with pytest.raises(
            BackendError, match=f"provider {provider}, found only cpu: Cannot load library: libOpenCL.so.1; .*driver"
        ) as caught:
            use()
        assert caught.value.instead == {"provider": "cpu"}
    monkeypatch.setattr(openvino_backend, "_core", lambda: SimpleNamespace(get_property=lambda name, what: []))
    with pytest.raises(BackendError, match=f"provider {provider}, found only cpu; .*driver"):
        backend.device(make_spec(provider))


def test_a_graphics_device_is_known_by_name_architecture_and_driver(backend: OpenVinoBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"FULL_DEVICE_NAME": "Arc", "DEVICE_ARCHITECTURE": "xe2", "GPU_DRIVER_VERSION": "31.0", "OPTIMIZATION_CAPABILITIES": ["FP16"]}
    monkeypatch.setattr(openvino_backend, "_found_devices", lambda: ("CPU", "GPU"))
    monkeypatch.setattr(backend, "_core", SimpleNamespace(get_property=lambda _, name: {**facts, "SUPPORTED_PROPERTIES": facts}[name]))
    spec = make_spec("gpu", 1, precision="float16")
    assert backend.device(spec) == ("Arc xe2", "31.0")
    assert backend._config("GPU", spec) == {"INFERENCE_PRECISION_HINT": "f16", "PERFORMANCE_HINT": "LATENCY"}
    assert backend.options(spec) == "hint=latency, weights=packed, angles=float32"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_16_bits_stay_so(tmp_path: Path, backend: OpenVinoBackend, dtype: str) -> None:
    weights = np.random.default_rng(0).standard_normal((512, 512)).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16)
    graph = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> agraph (float[1, 512] x) => (float[1, 512] y) {
             weights = Cast <to = 1> (packed)
             y = MatMul (x, weights)
           }"""
    )
    stored = TensorProto.BFLOAT16 if dtype == "bfloat16" else TensorProto.FLOAT16
    graph.graph.initializer.append(onnx.helper.make_tensor("packed", stored, weights.shape, weights.tobytes(), raw=True))
    onnx.save(graph, tmp_path / "graph.onnx")
    backend.build(tmp_path / "graph.onnx", tmp_path, make_spec(threads=1))
    assert (tmp_path / BLOB).stat().st_size < 1.2 * weights.nbytes
    x = np.random.default_rng(1).standard_normal((1, 512)).astype(np.float32)
    with backend.open(tmp_path, make_spec(threads=1)) as engine:
        np.testing.assert_allclose(engine.run({"x": x})["y"], x @ weights.astype(np.float32), atol=1e-3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep the pages")
def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path: Path) -> None:
    content = np.arange(8 << 20, dtype=np.uint32).view(np.uint8)
    content.tofile(tmp_path / "file")
    mapped = np.memmap(tmp_path / "file", np.uint8, "c")
    assert np.array_equal(mapped, content)
    before = resident_bytes()
    openvino_backend._forget_pages(mapped)
    after = resident_bytes()
    assert before is not None
    assert after is not None
    assert before - after > content.nbytes / 2
    assert np.array_equal(mapped, content)


def test_no_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match="install the openvino extra") as caught:
        get_backend("openvino")
    assert caught.value.install == ("costroute-rt[openvino]",)


def test_a_graph_of_unknown_operators_is_an_error_that_names_them(bundle_copy: Path, tmp_path: Path, backend: OpenVinoBackend) -> None:
    path = bundle_copy / "vae/decode.onnx"
    model = onnx.load(path, load_external_data=False)
    model.graph.node[0].op_type = "Teleport"
    path.write_bytes(model.SerializeToString())
    relist(bundle_copy, "vae/decode.onnx")
    with pytest.raises(EngineError, match="Teleport"):
        backend.build(path, tmp_path, BuildSpec())
    assert not (tmp_path / BLOB).exists()


def test_an_engine_that_is_not_its_interface_is_refused(folder: Path, tmp_path: Path, backend: OpenVinoBackend) -> None:
    shutil.copy(folder / BLOB, tmp_path)
    (tmp_path / INTERFACE).write_bytes((folder / INTERFACE).read_bytes().replace(b"text_encoder.last", b"text_encoder.lost"))
    with pytest.raises(EngineError, match=r"the engine cannot be opened: it has no port named text_encoder\.lost"):
        backend.open(tmp_path, make_spec(threads=1))


def test_a_call_that_fails_is_an_error(folder: Path, backend: OpenVinoBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Exception from src/a.cpp:1:\nCheck 'fits' failed at src/b.cpp:2:\nout of memory\n")

    with backend.open(folder, make_spec(threads=1)) as engine:
        feeds = {
            name: np.zeros([1 if isinstance(axis, str) else axis for axis in spec.shape], spec.dtype)
            for name, spec in engine.inputs.items()
        }
        monkeypatch.setattr(engine._request.raw, "infer", fail)
        with pytest.raises(EngineError, match="it failed while running: out of memory"):
            engine.run(feeds)


def test_every_listed_device_is_tried(backend: OpenVinoBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    assert openvino_backend.check_devices()["cpu"] is None

    class Refusing:
        """Lists two GPUs, and cannot load what runs them."""

        available_devices = ("CPU", "GPU.0", "GPU.1")

        def __getattr__(self, name: str) -> Any:
            return getattr(backend._core, name)

        def compile_model(self, model: Any, name: str) -> Any:
            if name != "CPU":
                raise RuntimeError("Exception from src/core.cpp:117:\nCannot load library: libOpenCL.so.1")
            return backend._core.compile_model(model, name)

    monkeypatch.setattr(openvino_backend, "_core", Refusing)
    openvino_backend._found_devices.cache_clear()
    try:
        assert openvino_backend.check_devices() == {"cpu": None, "gpu": "Cannot load library: libOpenCL.so.1"}
    finally:
        openvino_backend._found_devices.cache_clear()


def test_an_empty_file_is_an_error(folder: Path, tmp_path: Path, backend: OpenVinoBackend) -> None:
    shutil.copy(folder / INTERFACE, tmp_path)
    (tmp_path / BLOB).write_bytes(b"")
    with pytest.raises(EngineError, match="the engine cannot be opened"):
        backend.open(tmp_path, make_spec(threads=1))


ANGLES_GRAPH = """
<ir_version: 8, opset_import: ["" : 18]>
g (float[1] timestep, float[1, 4] x, int64[2] size) => (float[1, 4] y, float[1, 4] z, float[2] unused)
<float[4] frequency = {1.0, 0.3, 0.1, 0.01}, float[4, 4] weight = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>
{
  angle = Mul (timestep, frequency)
  sine = Sin (angle)
  cosine = Cos (angle)
  both = Add (sine, cosine)
  row = Reshape (both, shape)
  y = MatMul (row, weight)
  seen = MatMul (x, weight)
  deep = Sin (seen)
  z = MatMul (deep, weight)
  unused = Cast <to = 1> (size)
}
"""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sines_of_large_inputs_are_those_of_float32(tmp_path: Path, backend: OpenVinoBackend, precision: str) -> None:
    needs(precision, backend)
    text = ANGLES_GRAPH.replace("<float[4] frequency", "<int64[2] shape = {1, 4}, float[4] frequency")
    (tmp_path / "graph.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    backend.build(tmp_path / "graph.onnx", tmp_path, make_spec(threads=1, precision=precision))
    assert (tmp_path / openvino_backend.ANGLES).exists() == (precision != "float32")
    x = np.array([[0.5, 0.25, -0.5, 1.0]], np.float32)
    with backend.open(tmp_path, make_spec(threads=1, precision=precision)) as engine:
        for timestep in (951.3, 7.0):
            found = engine.run({"timestep": np.float32([timestep]), "x": x, "size": np.array([5, 6])})
            angle = np.float32([[1.0, 0.3, 0.1, 0.01]]) * np.float32(timestep)
            np.testing.assert_allclose(found["y"], np.sin(angle) + np.cos(angle), atol=0.01)
            np.testing.assert_allclose(found["z"], np.sin(x), atol=0.01)
            assert found["unused"].tolist() == [5, 6]
