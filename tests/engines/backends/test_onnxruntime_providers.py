"""What was asked for is what runs, or an error says what is missing and how to get it."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from costroute_rt.engines.backends.onnxruntime import providers as providers
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.onnxruntime.providers import ProviderCheck, check_provider, check_providers
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import make_spec
from costroute_rt.engines.building.progress import OpenEvent
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.machine import device, nvidia
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BackendError, ConfigError
from tests.engines.conftest import build


def _missing() -> str:
    """A provider that this ONNX Runtime was built without."""
    import onnxruntime

    listed = onnxruntime.get_available_providers()
    return next(name for name, full in providers.PROVIDERS.items() if full not in listed)


def test_a_missing_provider_is_an_error_with_the_remedy(tiny_bundle: Path, tmp_path: Path) -> None:
    name, bundle, store, started = _missing(), Bundle.open(tiny_bundle), Store.open(tmp_path), list[OpenEvent]()
    with pytest.raises(BackendError, match=f"provider {name}, found only .*cpu.*install") as caught:
        build(bundle, store, Setup(provider=name, threads=1), progress=started.append)
    assert started == []
    assert caught.value.install
    assert Store.open(tmp_path).verify() == []


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an NVIDIA driver."""
    device._gpu.cache_clear()
    monkeypatch.setattr(nvidia, "_load", lambda names: None)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch, no_driver: None) -> None:
    """An ONNX Runtime for the CPU, on a machine without an NVIDIA driver."""
    _list_providers(monkeypatch, "CPUExecutionProvider")
    monkeypatch.setattr(providers.Installation, "packages", ("onnxruntime",))
    monkeypatch.setattr(providers, "version_of", lambda name: "1.99")


def _list_providers(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: list(names))


@pytest.mark.usefixtures("no_cuda")
def test_the_library_that_a_cpu_build_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = re.escape(f"found only cpu: onnxruntime 1.99 has no {providers._library_name('cuda')}")
    replaced = "uninstall onnxruntime, then install the cuda extra"
    with pytest.raises(
        BackendError, match=rf"provider cuda, {lacks}, and there is no NVIDIA driver .* no (libcuda.so.1|nvcuda.dll); {replaced}"
    ) as caught:
        OnnxRuntimeBackend().device(make_spec("cuda"))
    assert (caught.value.uninstall, caught.value.install) == (("onnxruntime",), ("costroute-rt[cuda]",))
    monkeypatch.setattr(providers, "has_cuda_library", lambda: True)
    with pytest.raises(BackendError, match=rf"{lacks}; {replaced}"):
        OnnxRuntimeBackend().device(make_spec("cuda"))
    with pytest.raises(BackendError, match=r"onnxruntime 1.99 has no DmlExecutionProvider; install onnxruntime-directml"):
        OnnxRuntimeBackend().device(make_spec("directml"))


@pytest.mark.usefixtures("no_driver")
def test_the_driver_s_library_is_named_where_only_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    _list_providers(monkeypatch, "CUDAExecutionProvider", "CPUExecutionProvider")
    with pytest.raises(BackendError, match=r"an NVIDIA GPU, found no NVIDIA driver on this machine: it has no (libcuda.so.1|nvcuda.dll)"):
        OnnxRuntimeBackend().device(make_spec("cuda"))


@pytest.fixture
def broken_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An ONNX Runtime for CUDA whose library needs a missing one, which it only logs, and runs on the CPU."""
    _list_providers(monkeypatch, "CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(device, "named_gpu", lambda: ("card sm_89", "550"))
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / providers._library_name("cuda")).touch()

    def fail(path: str) -> None:
        raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(providers.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    monkeypatch.setattr(providers.ctypes, "CDLL", fail)
    session = SimpleNamespace(run=lambda *_: None, get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: session)
    monkeypatch.setattr("costroute_rt.engines.machine.fix.find_driver", lambda: None)


@pytest.mark.usefixtures("broken_cuda")
def test_the_library_that_could_not_be_loaded_is_named_with_the_package_that_brings_it(built_home: Path) -> None:
    library = providers._library_name("cuda")
    problem = rf"provider cuda, found a {library} that cannot be loaded: libcudnn.so.9: .*; install nvidia-cudnn-cu12"
    with pytest.raises(BackendError, match=problem):
        OnnxRuntimeBackend().device(make_spec("cuda"))
    with pytest.raises(BackendError, match=problem):
        OnnxRuntimeBackend().open(Store.open(built_home).engines()[0].path, make_spec("cuda", 1))


@pytest.mark.usefixtures("broken_cuda")
def test_cuda_s_packages_are_loaded_first_and_what_that_prints_is_no_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    providers.load_cuda_packages.cache_clear()
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: sys.stdout.write("Failed to load libcurand.so.10\n"))
    with pytest.raises(BackendError):
        OnnxRuntimeBackend().device(make_spec("cuda"))
    assert capsys.readouterr() == ("", "Failed to load libcurand.so.10\n")


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (("onnxruntime", "cuda", "float16"), "asked for provider cuda, found only cpu: onnxruntime 1.99 has no "),
        (("tensorrt-rtx", "auto", "auto"), "asked for backend tensorrt-rtx, found no usable "),
    ],
)
@pytest.mark.usefixtures("no_cuda")
def test_a_fallback_happens_only_where_allowed_and_says_why(
    asked: tuple[str, str, str], why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # not installed
    with caplog.at_level(logging.WARNING):
        setup = Setup.of(*asked, 1, allow_fallback=True)
    assert setup == Setup(backend="onnxruntime", provider="cpu", precision="float32", threads=1)
    assert setup.fallback is not None
    assert setup.fallback.startswith(why)
    with pytest.raises(BackendError, match=why):
        _refuse(Setup.of(*asked, 1))
    assert [record.getMessage() for record in caplog.records] == [f"running on onnxruntime cpu float32: {setup.fallback}"]


def _refuse(setup: Setup) -> None:
    obstacle = setup.obstacle()
    assert obstacle is not None
    raise obstacle


def test_an_engine_that_builds_and_cannot_run_here_falls_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    obstacle = BackendError("an NVIDIA GPU", "none", "install one")
    builds = SimpleNamespace(default_provider="cuda", default_precision="float16", device=lambda spec: ("", ""), obstacle=lambda: obstacle)
    monkeypatch.setattr(
        "costroute_rt.engines.backends.setup.get_backend", lambda name: builds if name == "tensorrt-rtx" else get_backend(name)
    )
    assert Setup.of("tensorrt-rtx", "auto", "auto", 1).fallback is None
    assert Setup.of("tensorrt-rtx", "auto", "auto", 1, allow_fallback=True).fallback == str(obstacle)


def test_what_works_is_no_fallback_and_a_wrong_value_is_an_error_all_the_same() -> None:
    assert Setup.of("onnxruntime", "auto", "auto", 1, allow_fallback=True).fallback is None
    with pytest.raises(ConfigError, match="backend is 'abacus'"):
        Setup.of("abacus", "auto", "auto", 1, allow_fallback=True)
    with pytest.raises(ConfigError, match="provider is 'abacus'"):
        Setup.of("onnxruntime", "abacus", "auto", 1, allow_fallback=True)


@pytest.mark.parametrize(("precision", "threads", "name"), [("float64", 1, "precision"), ("auto", 0, "threads")])
def test_a_wrong_value_for_a_missing_backend_is_no_reason_to_fall_back(
    precision: str, threads: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # not installed
    with pytest.raises(ConfigError, match=f"{name} is"):
        Setup.of("tensorrt-rtx", "auto", precision, threads, allow_fallback=True)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_cards_to_build_for_are_refused_where_engines_are_for_this_machine(backend: str, tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip(backend, reason=f"the setup is refused by {backend} itself, which is not installed")
    for allow_fallback in (False, True):
        with pytest.raises(ConfigError, match=f"target is 'ampere\\+': expected none with the backend {backend}"):
            build(
                Bundle.open(tiny_bundle),
                Store.open(tmp_path),
                Setup.of(backend, threads=1, target="ampere+", allow_fallback=allow_fallback),
            )
    assert not list(tmp_path.iterdir())


def test_a_session_that_fell_back_by_itself_is_an_error(tiny_bundle: Path, built_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(providers.PROVIDERS, "cuda", "CPUExecutionProvider")
    monkeypatch.setattr(providers, "_short_names", lambda: {"CPUExecutionProvider": "cpu"})
    with pytest.raises(BackendError, match=r"provider cuda, found cpu after opening.*driver"):
        OnnxRuntimeBackend().open(Store.open(built_home).engines()[0].path, make_spec("cuda", 1))


def test_an_unknown_provider_names_the_known_ones(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cpu, cuda, tensorrt, directml, coreml"):
        build(Bundle.open(tiny_bundle), Store.open(tmp_path), Setup(provider="abacus", threads=1))


def test_a_precision_that_is_not_built_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision is 'bfloat16': expected float32 with onnxruntime's provider cpu"):
        build(Bundle.open(tiny_bundle), Store.open(tmp_path), Setup(precision="bfloat16", threads=1))


def test_providers_are_tried_not_only_listed() -> None:
    found = {check.name: check for check in check_providers()}
    assert found["cpu"] == ProviderCheck("cpu", True, None)


def test_a_listed_provider_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("libcudnn.so.9: cannot open shared object file\nmore")

    check = check_provider(SimpleNamespace(InferenceSession=fail, SessionOptions=SimpleNamespace), "cuda")
    assert (check.works, check.problem) == (False, "libcudnn.so.9: cannot open shared object file")


def test_threads_of_a_new_session_do_not_spin_for_long() -> None:
    options = OnnxRuntimeBackend()._session_options(make_spec("cpu"))
    assert int(options.get_session_config_entry("session.intra_op.spin_duration_us")) <= 1000
