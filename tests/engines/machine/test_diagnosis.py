"""What does not work is named, with its fix."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from costroute_rt.engines.backends.onnxruntime import backend as onnxruntime_backend
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.backends.tensorrt import backend as tensorrt_backend
from costroute_rt.engines.machine import device, diagnosis, nvidia
from costroute_rt.engines.machine.diagnosis import Finding, check_nvidia
from costroute_rt.engines.machine.fix import Fix, find_fix
from costroute_rt.engines.machine.nvidia import Driver
from costroute_rt.error import BackendError
from tests.engines.fake_cuda import make_memory, needs_no_driver

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
        ("nvidia-ml-py", "not installed", None), ("pycuda", "not installed", None),
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


class Nvml:
    """The module pynvml on a machine with two GPUs, of which one has failed."""

    NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_GPU_IS_LOST, NVML_ERROR_LIB_RM_VERSION_MISMATCH = 12, 15, 18

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"reason {value}")
            self.value = value

    def __init__(self, status: int = 0) -> None:
        self.status, self.uses = status, 0

    def nvmlInit(self) -> None:
        if self.status:
            raise self.NVMLError(self.status)
        self.uses += 1

    def nvmlShutdown(self) -> None:
        self.uses -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "550.54.15"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12040

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 1:
            raise self.NVMLError(self.NVML_ERROR_GPU_IS_LOST)
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA GeForce RTX 4090"


def test_the_driver_is_asked_through_pynvml(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    assert nvidia.find_driver() == OLD
    assert nvml.uses == 0
    nvml.status = Nvml.NVML_ERROR_LIBRARY_NOT_FOUND
    assert nvidia.find_driver() is None


def test_without_pynvml_a_driver_is_reported_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(nvidia, "has_cuda_library", lambda: False)
    assert nvidia.find_driver() is None
    monkeypatch.setattr(nvidia, "has_cuda_library", lambda: True)
    assert find(check_nvidia(), "nvidia driver").fix == Fix("install nvidia-ml-py", install=("nvidia-ml-py",))


def test_the_installed_pynvml_has_what_is_asked_of_it() -> None:
    pynvml = pytest.importorskip(
        "pynvml", reason="compares with the installed nvidia-ml-py, which is missing: pip install costroute-rt[tensorrt-rtx]"
    )
    for name, value in vars(Nvml).items():
        if name.startswith("nvml"):
            assert list(inspect.signature(getattr(pynvml, name)).parameters) == list(inspect.signature(value).parameters)[1:]
        elif name.startswith("NVML_"):
            assert getattr(pynvml, name) == value
    assert pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST).value == Nvml.NVML_ERROR_GPU_IS_LOST


@needs_no_driver
def test_the_installed_pynvml_finds_no_driver() -> None:
    pytest.importorskip(
        "pynvml", reason="compares with the installed nvidia-ml-py, which is missing: pip install costroute-rt[tensorrt-rtx]"
    )
    assert nvidia.find_driver() is None


def test_a_driver_that_does_not_answer_is_a_problem_with_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(Nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))  # type: ignore[arg-type]
    found = find(check_nvidia(), "nvidia driver")
    assert (found.value, found.problem) == ("does not work", "reason 18 (NVML error 18)")
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
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """CUDA's library and pynvml on a machine whose first GPU by CUDA's order is not the first that NVML lists."""
    found = SimpleNamespace(cuda=Cuda(), nvml=Nvml())
    monkeypatch.setattr(nvidia, "_load", lambda _: found.cuda)
    monkeypatch.setitem(sys.modules, "pynvml", found.nvml)
    device._gpu.cache_clear()
    yield found
    device._gpu.cache_clear()


def test_the_gpu_is_the_one_cuda_takes(machine: SimpleNamespace) -> None:
    assert device.gpu() == device.named_gpu() == ("NVIDIA H100 sm_90", "550.54.15")
    assert device.gpu_memory_bytes() == 80 << 30


@pytest.mark.parametrize(
    ("cuda", "nvml_status", "message"),
    [
        (None, 0, "an NVIDIA GPU, found no NVIDIA driver on this machine: it has no (libcuda.so.1|nvcuda.dll)"),
        (Cuda(100), 0, r"an NVIDIA GPU, found none that CUDA can use \(error 100\)"),
        (
            Cuda(),
            Nvml.NVML_ERROR_LIBRARY_NOT_FOUND,
            "the GPU's name and driver, found a driver that does not report them; .*compute,utility",
        ),
        (Cuda(), 18, "the NVIDIA driver, found reason 18"),
    ],
)
def test_a_gpu_that_cannot_be_named_is_an_error_for_what_runs_on_it(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, cuda: Cuda | None, nvml_status: int, message: str
) -> None:
    machine.cuda, machine.nvml.status = cuda, nvml_status
    backend = onnxruntime_backend.OnnxRuntimeBackend()
    monkeypatch.setattr(backend, "_requested", lambda spec: [])
    monkeypatch.setattr(onnxruntime_backend, "prove_provider", lambda name: None)
    with pytest.raises(BackendError, match=message):
        backend.device(BuildSpec(provider="cuda"))
    assert (device.gpu(), device.gpu_memory_bytes()) == (("none", "none"), 0)
    machine.cuda, machine.nvml.status = Cuda(), 0  # the failure is not remembered
    assert backend.device(BuildSpec(provider="cuda")) == ("NVIDIA H100 sm_90", "550.54.15")


def test_a_gpu_without_pynvml_is_an_error_that_says_what_to_install(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(BackendError, match=r"the NVIDIA driver's version, found no usable pynvml module .*; install nvidia-ml-py"):
        nvidia.find_gpu()


def test_tensorrt_runs_nothing_on_a_gpu_that_cannot_be_named(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.nvml.status = Nvml.NVML_ERROR_LIBRARY_NOT_FOUND
    memory, _ = make_memory()
    monkeypatch.setattr(tensorrt_backend, "_import", lambda _: SimpleNamespace(__version__="1"))
    monkeypatch.setattr(tensorrt_backend, "open_cuda", lambda: memory)
    backend = tensorrt_backend.TensorRtBackend("tensorrt")
    obstacle = backend.obstacle()
    assert obstacle is not None
    for use in (lambda: backend.device(BuildSpec(provider="cuda", precision="float16")), lambda: backend.open(tmp_path, BuildSpec())):
        with pytest.raises(BackendError) as caught:
            use()
        assert str(caught.value) == str(obstacle)
    machine.nvml.status = 0
    assert backend.obstacle() is None
