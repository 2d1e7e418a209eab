"""The NVIDIA driver, asked through the two libraries that come with it: for management (NVML), and CUDA's; nothing else is needed."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from costroute_rt.error import BackendError, Reason

_LIBRARIES = ("nvml.dll", os.path.expandvars(r"%ProgramFiles%\NVIDIA Corporation\NVSMI\nvml.dll"))
CUDA_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
"""What the driver brings for CUDA."""
NO_DRIVER = f"no NVIDIA driver on this machine: it has no {CUDA_LIBRARY}"
_MAJOR, _MINOR = 75, 76
"""CUDA's numbers for the two parts of a compute capability."""
_TEXT_BYTES = 96


@dataclass(frozen=True, slots=True)
class Driver:
    """What is installed and what it drives."""

    version: str
    cuda: tuple[int, int]
    """Newest CUDA version it supports; (0, 0) where it does not say."""
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
    """The NVIDIA driver; None where there is none; raises BackendError with what it says where it does not work."""
    library = _load(_LIBRARIES if sys.platform == "win32" else ("libnvidia-ml.so.1",))
    if library is None:
        return None
    status = library.nvmlInit_v2()
    if status != 0:
        library.nvmlErrorString.restype = ctypes.c_char_p
        found = f"{library.nvmlErrorString(status).decode(errors='replace')} (NVML error {status})"
        raise BackendError("the NVIDIA driver", found, "restart the machine; if that does not help, install the NVIDIA driver again")
    try:
        version = _text(library.nvmlSystemGetDriverVersion)
        number = ctypes.c_int(0)
        library.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(number))
        return Driver(version, (number.value // 1000, number.value % 1000 // 10), _gpus(library)) if version else None
    finally:
        library.nvmlShutdown()


def has_cuda_library() -> bool:
    """Whether the driver's library for CUDA is there and can be loaded."""
    return _load((CUDA_LIBRARY,)) is not None


def find_gpu() -> Gpu:
    """The GPU that engines run on; raises BackendError where CUDA has none, or it cannot be told which it is."""
    library = _load((CUDA_LIBRARY,))
    status = library.cuInit(0) if library is not None else 0
    device, major, minor, size = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0), ctypes.c_size_t(0)
    if library is None or status != 0 or library.cuDeviceGet(ctypes.byref(device), 0) != 0:
        found = NO_DRIVER if library is None else f"none that CUDA can use (error {status})"
        raise BackendError("an NVIDIA GPU", found, "install the NVIDIA driver for this GPU", reason=Reason.DRIVER)
    buffer = ctypes.create_string_buffer(_TEXT_BYTES)
    failed = [
        library.cuDeviceGetName(buffer, _TEXT_BYTES, device),
        library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
        library.cuDeviceTotalMem_v2(ctypes.byref(size), device),
    ]
    driver = find_driver()
    if any(failed) or driver is None:
        remedy = "install the driver's management library (NVML); a container gets it by NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        raise BackendError("the GPU's name and driver", "a GPU that does not tell them", remedy)
    return Gpu(buffer.value.decode(errors="replace"), f"sm_{major.value}{minor.value}", size.value, driver.version)


def _load(names: Sequence[str]) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _gpus(library: ctypes.CDLL) -> tuple[str, ...]:
    count, names = ctypes.c_uint(0), []
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0:
            names.append(_text(library.nvmlDeviceGetName, handle))
    return tuple(names)


def _text(call: ctypes._NamedFuncPointer, *arguments: ctypes.c_void_p) -> str:
    buffer = ctypes.create_string_buffer(_TEXT_BYTES)
    return buffer.value.decode(errors="replace") if call(*arguments, buffer, _TEXT_BYTES) == 0 else ""
