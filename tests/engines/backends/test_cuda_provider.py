"""ONNX Runtime's CUDA provider as far as it goes without a card: options, float16 files, and fixed addresses, tried on the host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.onnxruntime import backend as ort_backend
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.spec import make_spec
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.gate import compare
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import ConfigError, EngineError

SHAPES = {"batch": 1, "height": 4, "width": 4, "tokens": 64, "sequence": 64}
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> OnnxRuntimeBackend:
    """A backend that lists CUDA, and notes what sessions are asked for; they run on the host."""
    backend = OnnxRuntimeBackend()
    monkeypatch.setattr(backend, "_ort", Ort(backend._ort))
    monkeypatch.setitem(ort_backend.DEVICE_TYPES, "cuda", "cpu")
    monkeypatch.setattr(ort_backend.device, "gpu_memory_bytes", lambda: 10 << 30)
    return backend


class Ort:
    """ONNX Runtime with CUDA in its list."""

    def __init__(self, ort: Any) -> None:
        self._ort, self.asked = ort, list[Any]()
        self.refusal = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ort, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def InferenceSession(self, path: str, options: Any, providers: list[Any], **how: Any) -> Any:
        self.asked.append(providers)
        if self.refusal and "enable_cuda_graph" in str(providers):
            raise RuntimeError(self.refusal)
        session = self._ort.InferenceSession(path, options, providers=[CPU], **how)
        session.get_providers = lambda: [each if isinstance(each, str) else each[0] for each in providers]
        return session


def build(backend: OnnxRuntimeBackend, bundle: Path, target: Path, **how: Any) -> Path:
    target.mkdir(exist_ok=True)
    backend.build(bundle / "unet/guided_step.onnx", target, make_spec(threads=1, **how))
    return target


def open_on_cuda(backend: OnnxRuntimeBackend, folder: Path) -> Engine:
    return backend.open(folder, make_spec("cuda", 1))


def test_fixed_shapes_are_replayed_and_free_ones_are_not(tiny_bundle: Path, tmp_path: Path, backend: OnnxRuntimeBackend) -> None:
    for name, shapes in (("fixed", SHAPES), ("free", {})):
        open_on_cuda(backend, build(backend, tiny_bundle, tmp_path / name, shapes=shapes)).close()
    options = {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0", "gpu_mem_limit": str(9 << 30)}
    asked = [providers for providers in backend._ort.asked if providers != [CPU]]
    assert asked == [[(CUDA, {**options, "enable_cuda_graph": "1"}), CPU], [(CUDA, options), CPU]]


def test_a_graph_that_cannot_be_recorded_runs_without(tiny_bundle: Path, tmp_path: Path, backend: OnnxRuntimeBackend) -> None:
    folder = build(backend, tiny_bundle, tmp_path, shapes=SHAPES)
    backend._ort.refusal = "This session cannot use the graph capture feature as not all nodes are on the device"
    open_on_cuda(backend, folder).close()
    assert [("enable_cuda_graph" in str(each)) for each in backend._ort.asked[-2:]] == [True, False]
    backend._ort.refusal = "libcudnn.so.9: cannot open shared object file"
    with pytest.raises(EngineError, match="libcudnn"):
        open_on_cuda(backend, folder)


def test_what_decides_the_engine_is_in_its_options(backend: OnnxRuntimeBackend) -> None:
    said = {backend.options(make_spec(provider, 1, precision=precision)) for provider, precision in
            (("cpu", "float32"), ("cuda", "float32"), ("cuda", "float16"), ("tensorrt", "float16"))}  # fmt: skip
    assert len(said) == 4
    assert "arena_extend_strategy=kSameAsRequested use_tf32=0 memory=0.9 replay=static" in backend.options(make_spec("cuda", 1))


@pytest.fixture
def replayed(tiny_bundle: Path, tmp_path: Path, backend: OnnxRuntimeBackend) -> Iterator[Engine]:
    """An engine that works as one on CUDA does, its device being the host."""
    with open_on_cuda(backend, build(backend, tiny_bundle, tmp_path, shapes=SHAPES)) as engine:
        yield engine


def test_a_replay_computes_what_its_graph_says_again_and_again(replayed: Engine, tiny_bundle: Path) -> None:
    feeds = example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx")
    values = {name: replayed.to_device(array) for name, array in feeds.items()}
    first = replayed.run(values)
    second = replayed.run({**values, "latent": first["next_latent"], "denoised_before": first["denoised"]})
    again = {**feeds, "latent": replayed.to_host(first["next_latent"]), "denoised_before": replayed.to_host(first["denoised"])}
    for inputs, found in ((feeds, first), (again, second)):
        expected = OnnxRuntimeBackend().open_reference(tiny_bundle / "unet/guided_step.onnx").run(inputs)
        for name, want in expected.items():
            np.testing.assert_allclose(replayed.to_host(found[name]), want, rtol=1e-4, atol=1e-4)


def test_a_replay_keeps_its_addresses_and_copies_what_is_new(replayed: Engine, tiny_bundle: Path) -> None:
    replay = replayed._replay  # type: ignore[attr-defined]
    addresses = {name: value.data_ptr() for name, value in {**replay._inputs, **replay._outputs}.items()}
    values = {name: replayed.to_device(array) for name, array in example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx").items()}
    first = replayed.run(values)
    name = next(name for name in values if name.startswith("condition"))
    replay._inputs[name].update_inplace(np.zeros(values[name].shape(), np.float32))  # stays, as the same value is not copied twice
    changed = replayed.run(values)
    assert not np.array_equal(replayed.to_host(first["denoised"]), replayed.to_host(changed["denoised"]))
    assert {name: value.data_ptr() for name, value in {**replay._inputs, **replay._outputs}.items()} == addresses
    assert first["denoised"].data_ptr() not in addresses.values()


def test_float16_is_written_into_the_engine(tiny_bundle: Path, tmp_path: Path, backend: OnnxRuntimeBackend) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "first")
    tiny_bundle = tmp_path / "linked"  # as a bundle is that was made from another
    shutil.copytree(tmp_path / "first", tiny_bundle, copy_function=os.link)
    folder = build(backend, tiny_bundle, tmp_path, shapes=SHAPES, provider="cuda", precision="float16")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in model.graph.initializer}
    feeds = example_feeds(Bundle.open(tiny_bundle), "unet/guided_step.onnx")
    expected = backend.open_reference(tiny_bundle / "unet/guided_step.onnx").run(feeds)
    with backend.open(folder, make_spec("cuda", 1, precision="float16")) as engine:
        assert engine.inputs["latent"].shape == (1, 4, 4, 4)
        found = engine.run({name: engine.to_device(array) for name, array in feeds.items()})
        assert compare(expected, {name: engine.to_host(value) for name, value in found.items()}, "float16")[2] is None


def test_float16_needs_a_device_that_has_it(backend: OnnxRuntimeBackend) -> None:
    with pytest.raises(ConfigError, match="precision is 'float16': expected float32 with onnxruntime's provider cpu"):
        backend.device(make_spec("cpu", 1, precision="float16"))
