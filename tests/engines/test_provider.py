"""What was asked for is what runs, or an error says what is missing and how to get it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from costroute_rt.engines import onnxruntime_backend as ort_backend
from costroute_rt.engines.build import build_engines, make_spec
from costroute_rt.engines.bundle import Bundle
from costroute_rt.engines.engine import get_backend
from costroute_rt.engines.error import BackendError, ConfigError
from costroute_rt.engines.onnxruntime_backend import OnnxRuntimeBackend, check_providers, list_distributions
from costroute_rt.engines.store import Store


def _missing() -> str:
    """A provider that this ONNX Runtime was built without."""
    import onnxruntime

    listed = onnxruntime.get_available_providers()
    return next(name for name, full in ort_backend.PROVIDERS.items() if full not in listed)


def test_a_provider_that_is_not_there_is_an_error_with_the_remedy(tiny_bundle: Path, tmp_path: Path) -> None:
    name, bundle, store, told = _missing(), Bundle.open(tiny_bundle), Store.open(tmp_path), list[str]()
    with pytest.raises(BackendError, match=f"provider {name}, found only .*cpu.*pip install") as caught:
        build_engines(bundle, store, provider=name, threads=1, progress=lambda graph, *_: told.append(graph))
    assert told == []
    assert caught.value.exit_code == 6
    assert Store.open(tmp_path).verify() == []


def test_a_fallback_happens_only_where_allowed(built_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend, folder, name = OnnxRuntimeBackend(), Store.open(built_home).engines()[0].path, _missing()
    with pytest.raises(BackendError):
        backend.open(folder, make_spec(name, 1))
    with caplog.at_level(logging.WARNING), backend.open(folder, make_spec(name, 1, allow_fallback=True)) as engine:
        assert engine.provider == "cpu"
    assert f"asked for provider {name}, running on cpu" in caplog.text


def test_a_session_that_fell_back_by_itself_is_an_error(tiny_bundle: Path, built_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ort_backend.PROVIDERS, "cuda", "CPUExecutionProvider")
    monkeypatch.setattr(ort_backend, "_short_names", lambda: {"CPUExecutionProvider": "cpu"})
    with pytest.raises(BackendError, match=r"provider cuda, found cpu after opening.*driver"):
        OnnxRuntimeBackend().open(Store.open(built_home).engines()[0].path, make_spec("cuda", 1))


def test_an_unknown_provider_names_the_known_ones(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cpu, cuda, tensorrt, directml, coreml"):
        build_engines(Bundle.open(tiny_bundle), Store.open(tmp_path), provider="abacus", threads=1)


def test_a_precision_that_is_not_built_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision is 'bfloat16': expected float32 with onnxruntime's provider cpu"):
        build_engines(Bundle.open(tiny_bundle), Store.open(tmp_path), precision="bfloat16", threads=1)


def test_two_packages_of_one_module_are_found(tmp_path: Path) -> None:
    for name in ("onnxruntime-1.30.0", "onnxruntime_gpu-1.30.0", "onnxruntime_extensions-0.14.0", "onnx-1.20"):
        (tmp_path / f"{name}.dist-info").mkdir()
    assert list_distributions(tmp_path) == ["onnxruntime", "onnxruntime-gpu"]


def test_two_packages_of_one_module_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_backend, "installed_distributions", lambda: ["onnxruntime", "onnxruntime-gpu"])
    with pytest.raises(BackendError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        get_backend("onnxruntime")


def test_no_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_backend, "installed_distributions", list)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=re.escape("pip install 'costroute-rt[cpu]'")):
        get_backend("onnxruntime")


def test_providers_are_tried_not_only_listed() -> None:
    found = {check.name: check for check in check_providers()}
    assert found["cpu"] == ort_backend.ProviderCheck("cpu", True, None)


def test_a_listed_provider_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("libcudnn.so.9: cannot open shared object file\nmore")

    backend = OnnxRuntimeBackend()
    stub = SimpleNamespace(InferenceSession=fail, SessionOptions=backend._ort.SessionOptions)
    monkeypatch.setattr(backend, "_ort", stub)
    check = ort_backend._check_provider(backend, "cuda", "CUDAExecutionProvider")
    assert (check.works, check.problem) == (False, "libcudnn.so.9: cannot open shared object file")
