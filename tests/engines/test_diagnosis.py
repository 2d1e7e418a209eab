"""What does not work is named, with the command that mends it."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from costroute_rt.engines import diagnosis, nvidia, onnxruntime_backend
from costroute_rt.engines.diagnosis import Finding, check_backends, check_nvidia, check_onnxruntime
from costroute_rt.engines.error import BackendError
from costroute_rt.engines.nvidia import Driver
from costroute_rt.engines.onnxruntime_backend import ProviderCheck

OLD = Driver("550.54.15", (12, 4), ("NVIDIA GeForce RTX 4090",))


def find(findings: Iterable[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


@pytest.mark.parametrize(
    ("problem", "remedy"),
    [
        ("libcudnn.so.9: cannot open shared object file", "pip install nvidia-cudnn-cu12"),
        ("libcublasLt.so.12: cannot open shared object file", "pip install nvidia-cublas-cu12"),
        ("libcublasLt.so.13: cannot open shared object file", "pip install nvidia-cublas"),
        ("libcudart.so.13: cannot open shared object file", "pip install nvidia-cuda-runtime"),
        ('"cublas64_12.dll" which is missing', "pip install nvidia-cublas-cu12"),
        ("libnvinfer.so.10: cannot open shared object file", "pip install tensorrt-cu12"),
        ("libcuda.so.1: cannot open shared object file", "install the NVIDIA driver"),
        ("libodd.so.3: cannot open shared object file", "install what brings libodd.so.3"),
        ("CPUExecutionProvider runs instead", "install what cuda needs, or use another provider"),
    ],
)
def test_a_missing_library_is_mended_by_the_package_that_brings_it(monkeypatch: pytest.MonkeyPatch, problem: str, remedy: str) -> None:
    monkeypatch.setattr(diagnosis, "find_driver", lambda: None)
    monkeypatch.setattr(onnxruntime_backend, "check_providers", lambda: [ProviderCheck("cuda", False, problem)])
    finding = find(check_onnxruntime(), "provider cuda")
    assert (finding.value, finding.problem, finding.remedy) == ("listed, does not work", problem, remedy)


def test_a_driver_too_old_for_a_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_driver", lambda: OLD)
    versions = {"cuda-bindings": "13.0.1", "tensorrt-cu13": "11.0", "tensorrt": "11.0"}
    monkeypatch.setattr(diagnosis, "_installed", lambda: versions)
    findings = list(check_nvidia())
    assert find(findings, "nvidia driver").value == "550.54.15, CUDA up to 12.4"
    assert find(findings, "gpu 0").value == "NVIDIA GeForce RTX 4090"
    found = find(findings, "cuda-bindings and driver")
    assert found.problem == "cuda-bindings 13.0.1 is for CUDA 13, driver 550.54.15 supports up to 12.4"
    assert found.remedy == "install a newer NVIDIA driver, or pip install 'cuda-bindings<13'"
    assert str(find(findings, "tensorrt-cu13 and driver").remedy).endswith("pip install tensorrt-cu12")
    monkeypatch.setattr(diagnosis, "find_driver", lambda: Driver("580.65", (13, 0), ()))
    assert not [finding for finding in check_nvidia() if finding.problem]


def test_no_driver_is_a_fact_not_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_driver", lambda: None)
    monkeypatch.setattr(diagnosis, "_installed", lambda: {"cuda-bindings": "13.0.1"})
    assert [(each.name, each.value, each.problem) for each in check_nvidia()] == [
        ("nvidia driver", "none", None), ("cuda-bindings", "13.0.1", None), ("cuda-core", "not installed", None),
        ("pycuda", "not installed", None),
    ]  # fmt: skip


def test_parts_of_several_tensorrt_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_driver", lambda: None)
    versions = {"tensorrt": "11.0", "tensorrt-cu13": "11.0", "tensorrt-cu13-libs": "10.9", "tensorrt-rtx": "1.7", "tensorrt-dispatch": "9"}
    monkeypatch.setattr(diagnosis, "_installed", lambda: versions)
    found = [finding for finding in check_nvidia() if finding.problem]
    assert [each.name for each in found] == ["tensorrt"]
    assert "tensorrt 11.0, tensorrt-cu13 11.0, tensorrt-cu13-libs 10.9" in str(found[0].problem)
    assert found[0].remedy == "pip uninstall -y tensorrt tensorrt-cu13 tensorrt-cu13-libs && pip install tensorrt"


def fake_backend(monkeypatch: pytest.MonkeyPatch, obstacle: BackendError | None = None) -> None:
    """OpenVINO 9.9 is installed, and nothing else beside ONNX Runtime."""
    monkeypatch.setattr(diagnosis, "find_spec", lambda module: object() if module == "openvino" else None)
    monkeypatch.setattr(diagnosis, "get_backend", lambda name: SimpleNamespace(version="9.9", obstacle=lambda: obstacle))


def test_other_backends_are_opened_or_told_with_what_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backend(monkeypatch)
    assert [(each.name, each.value, each.problem) for each in check_backends()] == [
        ("backend openvino", "9.9, works", None),
        ("backend tensorrt", 'not installed (pip install "costroute-rt[tensorrt]")', None),
        ("backend tensorrt-rtx", 'not installed (pip install "costroute-rt[tensorrt-rtx]")', None),
    ]


def test_a_backend_that_builds_and_cannot_run_is_a_fact_not_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backend(monkeypatch, BackendError("an NVIDIA GPU", "no NVIDIA driver", "install one"))
    found = find(check_backends(), "backend openvino")
    assert (found.value, found.problem) == ("9.9, builds engines, cannot run them: no NVIDIA driver (install one)", None)


def test_a_backend_that_cannot_be_opened_says_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise BackendError("openvino", "version 9.9", "pip install 'openvino<9'")

    fake_backend(monkeypatch)
    monkeypatch.setattr(diagnosis, "get_backend", fail)
    found = find(check_backends(), "backend openvino")
    assert (found.value, found.problem, found.remedy) == ("does not work", "version 9.9", "pip install 'openvino<9'")


class Library:
    """NVML as it answers on a machine with one GPU."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.is_shut_down = status, False

    def nvmlInit_v2(self) -> int:
        return self.status

    def nvmlShutdown(self) -> int:
        self.is_shut_down = True
        return 0

    def nvmlSystemGetDriverVersion(self, buffer: object, length: int) -> int:
        buffer.value = b"550.54.15"  # type: ignore[attr-defined]
        return 0

    def nvmlSystemGetCudaDriverVersion_v2(self, number: object) -> int:
        number._obj.value = 12040  # type: ignore[attr-defined]
        return 0

    def nvmlDeviceGetCount_v2(self, number: object) -> int:
        number._obj.value = 1  # type: ignore[attr-defined]
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: object) -> int:
        return 0

    def nvmlDeviceGetName(self, handle: object, buffer: object, length: int) -> int:
        buffer.value = b"NVIDIA GeForce RTX 4090"  # type: ignore[attr-defined]
        return 0


def test_the_driver_is_asked_through_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(nvidia, "_load", lambda: library)
    assert nvidia.find_driver() == OLD
    assert library.is_shut_down
    monkeypatch.setattr(nvidia, "_load", lambda: Library(9))
    assert nvidia.find_driver() is None
    monkeypatch.setattr(nvidia, "_load", lambda: None)
    assert nvidia.find_driver() is None
