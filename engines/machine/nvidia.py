"""The NVIDIA driver: the GPU through its CUDA library, for which no package is needed; version and all GPUs through pynvml."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from dataclasses import dataclass

from costroute_rt.error import BackendError, Reason

CUDA_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
"""What the driver brings for CUDA."""
NO_DRIVER = f"no NVIDIA driver on this machine: it has no {CUDA_LIBRARY}"
DRIVER_REMEDY = "install the NVIDIA driver for this GPU"
GPU_REMEDY = "close what else uses the GPU"
_MAJOR, _MINOR = 75, 76
"""CUDA's numbers for the two parts of a compute capability."""
_NAME_BYTES = 96


@dataclass(frozen=True, slots=True)
class Driver:
    """What is installed and what it drives."""

    version: str
    cuda: tuple[int, int]
    """Newest CUDA version it supports."""
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that engines run on: CUDA's first, by CUDA_VISIBLE_DEVICES and CUDA's own order, not the first that the driver lists."""

    name: str
    capability: str
    """Such as `sm_89`."""
    memory_bytes: int
    driver: str
    """The driver's version."""


def find_driver() -> Driver | None:
    """The NVIDIA driver, or None; raises BackendError if it does not work, or pynvml is missing beside it."""
    try:
        import pynvml
    except ImportError as error:
        if not has_cuda_library():
            return None
        found = f"no usable pynvml module ({error})"
        raise BackendError("the NVIDIA driver's version", found, "install nvidia-ml-py", ["nvidia-ml-py"]) from error
    if not hasattr(pynvml, "nvmlInit"):
        found, remedy = f"a pynvml module without nvmlInit ({getattr(pynvml, '__file__', None)})", "install nvidia-ml-py again"
        raise BackendError("the NVIDIA driver's version", found, remedy, ["nvidia-ml-py"], reason=Reason.DAMAGED)
    try:
        pynvml.nvmlInit()
        try:
            number, gpus = pynvml.nvmlSystemGetCudaDriverVersion_v2(), []
            for index in range(pynvml.nvmlDeviceGetCount()):
                with suppress(pynvml.NVMLError):  # one that failed, or that this user may not use
                    gpus.append(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index)))
            return Driver(pynvml.nvmlSystemGetDriverVersion(), (number // 1000, number % 1000 // 10), tuple(gpus))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return None
        found = f"{error} (NVML error {error.value})"
        remedy = "restart the machine; if that does not help, install the NVIDIA driver again"
        raise BackendError("the NVIDIA driver", found, remedy) from error


def has_cuda_library() -> bool:
    """Whether the driver's library for CUDA is there and can be loaded."""
    return _load(CUDA_LIBRARY) is not None


def find_gpu() -> Gpu:
    """The GPU that engines run on; raises BackendError where CUDA has none, or its name or driver version is unknown."""
    library = _load(CUDA_LIBRARY)
    if library is None:
        raise BackendError("an NVIDIA GPU", NO_DRIVER, DRIVER_REMEDY, reason=Reason.DRIVER)
    device, major, minor, size = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0), ctypes.c_size_t(0)
    status = library.cuInit(0) or library.cuDeviceGet(ctypes.byref(device), 0)
    if status != 0:
        raise BackendError("an NVIDIA GPU", f"none that CUDA can use (error {status})", DRIVER_REMEDY, reason=Reason.DRIVER)
    buffer = ctypes.create_string_buffer(_NAME_BYTES)
    failed = [
        library.cuDeviceGetName(buffer, _NAME_BYTES, device),
        library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
        library.cuDeviceTotalMem_v2(ctypes.byref(size), device),
    ]
    driver = find_driver()
    if any(failed) or driver is None:
        remedy = "install the driver's management library (NVML); a container gets it by NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        raise BackendError("the GPU's name and driver", "a driver that does not report them", remedy)
    return Gpu(buffer.value.decode(errors="replace"), f"sm_{major.value}{minor.value}", size.value, driver.version)


def _load(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
