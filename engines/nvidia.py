"""The NVIDIA driver, asked through its management library (NVML), which comes with it; no CUDA needed."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass

_LIBRARIES = ("nvml.dll", os.path.expandvars(r"%ProgramFiles%\NVIDIA Corporation\NVSMI\nvml.dll"))
_TEXT_BYTES = 96


@dataclass(frozen=True, slots=True)
class Driver:
    """What is installed and what it drives."""

    version: str
    cuda: tuple[int, int]
    """Newest CUDA version it supports; (0, 0) where it does not say."""
    gpus: tuple[str, ...]


def find_driver() -> Driver | None:
    """The NVIDIA driver; None where there is none, or it does not answer."""
    library = _load()
    if library is None or library.nvmlInit_v2() != 0:
        return None
    try:
        version = _text(library.nvmlSystemGetDriverVersion)
        number = ctypes.c_int(0)
        library.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(number))
        return Driver(version, (number.value // 1000, number.value % 1000 // 10), _gpus(library)) if version else None
    finally:
        library.nvmlShutdown()


def _load() -> ctypes.CDLL | None:
    for name in _LIBRARIES if sys.platform == "win32" else ("libnvidia-ml.so.1",):
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
