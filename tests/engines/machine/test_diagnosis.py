"""What does not work is named, with its fix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from costroute_rt.engines.backends.onnxruntime import backend as onnxruntime_backend
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.backends.tensorrt import backend as tensorrt_backend
from costroute_rt.engines.backends.tensorrt.cuda_memory import CudaMemory
from costroute_rt.engines.machine import device, diagnosis, nvidia
from costroute_rt.engines.machine.diagnosis import Finding, check_nvidia
from costroute_rt.engines.machine.library import Fix, find_fix
from costroute_rt.engines.machine.nvidia import Driver
from costroute_rt.error import BackendError
from tests.engines.fake_cuda import FakeDriver

OLD = Driver("550.54.15", (12, 4), ("NVIDIA GeForce RTX 4090",))


def find(findings: Iterable[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_a_driver_too_old_for_a_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_driver", lambda: OLD)
    versions = {"cuda-bindings": "13.0.1", "tensorrt-cu13": "11.0", "tensorrt": "11.0"}
    monkeypatch.setattr(diagnosis, "_installed", lambda: versions)
    findings = list(check_nvidia())
    assert find(findings, "nvidia driver").value == "550.54.15, CUDA up to 12.4"
    assert find(findings, "gpu 0").value == "NVIDIA GeForce RTX 4090"
    found = find(findings, "cuda-bindings and driver")
    assert found.problem == "cuda-bindings 13.0.1 is for CUDA 13, driver 550.54.15 supports up to 12.4"
    assert found.fix == Fix("install a newer NVIDIA driver, or cuda-bindings<13", install=("cuda-bindings<13",))
    assert find(findings, "tensorrt-cu13 and driver").fix == Fix("install a newer NVIDIA driver, or tensorrt-cu12", ("tensorrt-cu12",))
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
    parts = ("tensorrt", "tensorrt-cu13", "tensorrt-cu13-libs")
    assert found[0].fix == Fix("uninstall them, and install tensorrt again", install=("tensorrt",), uninstall=parts)


class Library:
    """NVML as it answers on a machine with one GPU."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.is_shut_down = status, False
        self.nvmlErrorString = lambda status: b"Driver/library version mismatch"  # a function, so that it can have a restype

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
    monkeypatch.setattr(nvidia, "_load", lambda _: library)
    assert nvidia.find_driver() == OLD
    assert library.is_shut_down
    monkeypatch.setattr(nvidia, "_load", lambda _: None)
    assert nvidia.find_driver() is None


def test_a_driver_that_does_not_answer_is_a_problem_with_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "_load", lambda _: Library(18))
    found = find(check_nvidia(), "nvidia driver")
    assert (found.value, found.problem) == ("does not work", "Driver/library version mismatch (NVML error 18)")
    assert found.fix is not None
    assert found.fix.remedy.startswith("restart the machine")
    fix = Fix("install nvidia-cudnn-cu12", install=("nvidia-cudnn-cu12",))
    assert find_fix("libcudnn.so.9: cannot open") == fix  # and the version of CUDA is the usual one


class Cuda:
    """CUDA's library as it answers on a machine with one GPU."""

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return 0

    def cuDeviceGetName(self, buffer: Any, length: int, device: object) -> int:
        buffer.value = b"NVIDIA H100"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: object) -> int:
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: object) -> int:
        size._obj.value = 80 << 30
        return 0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The libraries of a machine whose first GPU by CUDA's order is not the first that NVML lists."""
    libraries: dict[str, Any] = {"cuda": Cuda(), "nvml": Library()}
    monkeypatch.setattr(nvidia, "_load", lambda names: libraries["cuda" if "cuda" in names[0] else "nvml"])
    device._gpu.cache_clear()
    yield libraries
    device._gpu.cache_clear()


def test_the_gpu_is_the_one_cuda_takes(cuda: dict[str, Any]) -> None:
    assert device.gpu() == device.named_gpu() == ("NVIDIA H100 sm_90", "550.54.15")
    assert device.gpu_memory_bytes() == 80 << 30


@pytest.mark.parametrize(
    ("libraries", "message"),
    [
        ({"cuda": None}, "an NVIDIA GPU, found no NVIDIA driver on this machine: it has no (libcuda.so.1|nvcuda.dll)"),
        ({"cuda": Cuda(100)}, r"an NVIDIA GPU, found none that CUDA can use \(error 100\)"),
        ({"nvml": None}, "the GPU's name and driver, found a GPU that does not tell them; .*compute,utility"),
        ({"nvml": Library(18)}, "version mismatch"),
    ],
)
def test_a_gpu_that_cannot_be_named_is_an_error_for_what_runs_on_it(
    cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch, libraries: dict[str, Any], message: str
) -> None:
    working = dict(cuda)
    cuda.update(libraries)
    backend = onnxruntime_backend.OnnxRuntimeBackend()
    monkeypatch.setattr(backend, "_requested", lambda spec: [])
    monkeypatch.setattr(onnxruntime_backend, "prove_provider", lambda name: None)
    with pytest.raises(BackendError, match=message):
        backend.device(BuildSpec(provider="cuda"))
    assert (device.gpu(), device.gpu_memory_bytes()) == (("none", "none"), 0)
    cuda.update(working)  # that there was none is not remembered
    assert backend.device(BuildSpec(provider="cuda")) == ("NVIDIA H100 sm_90", "550.54.15")


def test_tensorrt_runs_nothing_on_a_gpu_that_cannot_be_named(cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cuda["nvml"] = None
    monkeypatch.setattr(tensorrt_backend, "_import", lambda _: SimpleNamespace(__version__="1"))
    monkeypatch.setattr(tensorrt_backend, "open_cuda", lambda: CudaMemory(FakeDriver(), 1, 7))
    backend = tensorrt_backend.TensorRtBackend("tensorrt")
    obstacle = backend.obstacle()
    assert obstacle is not None
    for use in (lambda: backend.device(BuildSpec(provider="cuda", precision="float16")), lambda: backend.open(tmp_path, BuildSpec())):
        with pytest.raises(BackendError) as caught:
            use()
        assert str(caught.value) == str(obstacle)
    cuda["nvml"] = Library()
    assert backend.obstacle() is None
