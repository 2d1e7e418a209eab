"""CUDA through pycuda, for applications that bring it: what `cuda_memory` calls of cuda-bindings. The only file that imports pycuda.

Each answers as those do, with a code, 0 or what went wrong, and what was asked for; an address stands for memory. Contexts are pushed and
popped by pycuda, which keeps a stack of its own of them: the application's context and ours lie beside each other there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

from costroute_rt.error import BackendError


def find_pycuda() -> PycudaDriver | None:
    """None where pycuda, or the driver library it is linked to, is not there."""
    try:
        import pycuda.driver
    except ImportError:
        return None
    return PycudaDriver(pycuda.driver)


def _answered(work: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """The result behind a code, as cuda-bindings answers; an error's text is its code."""

    @wraps(work)
    def call(self: PycudaDriver, *arguments: Any) -> tuple[Any, ...]:
        try:
            result = work(self, *arguments)
        except self.cuda.Error as error:
            return (str(error),)
        if result is None:
            return (0,)
        return (0, *result) if isinstance(result, tuple) else (0, result)

    return call


class PycudaDriver:
    """What stands for `cuda.bindings.driver`."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=2)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)

    def __init__(self, cuda: ModuleType) -> None:
        self.cuda = cuda
        self._kept: dict[int, Any] = {}
        """pycuda's objects by their addresses; each frees what it stands for with its last reference."""

    def cuGetErrorString(self, result: str) -> tuple[int, bytes]:
        return 0, result.encode()

    @_answered
    def cuInit(self, flags: int) -> None:
        self.cuda.init(flags)

    @_answered
    def cuDeviceGet(self, ordinal: int) -> Any:
        return self.cuda.Device(ordinal)

    @_answered
    def cuDevicePrimaryCtxRetain(self, device: Any) -> Any:
        return device.retain_primary_context()

    @_answered
    def cuCtxPushCurrent(self, context: Any) -> None:
        context.push()

    @_answered
    def cuCtxPopCurrent(self) -> None:
        self.cuda.Context.pop()

    @_answered
    def cuStreamCreate(self, flags: int) -> _Stream:
        return _Stream(self.cuda.Stream(flags))

    @_answered
    def cuStreamSynchronize(self, stream: _Stream) -> None:
        stream.stream.synchronize()

    @_answered
    def cuStreamBeginCapture(self, stream: _Stream, mode: int) -> None:
        raise BackendError("a recorded CUDA graph", "pycuda, which records none", "install cuda-bindings", ["cuda-bindings"])

    @_answered
    def cuMemAlloc(self, nbytes: int) -> int:
        memory = self.cuda.mem_alloc(nbytes)
        self._kept[int(memory)] = memory
        return int(memory)

    @_answered
    def cuMemFree(self, pointer: int) -> None:
        self._kept.pop(pointer).free()

    @_answered
    def cuMemAllocHost(self, nbytes: int) -> int:
        array = self.cuda.pagelocked_empty(nbytes, "uint8")
        self._kept[array.ctypes.data] = array
        return int(array.ctypes.data)

    @_answered
    def cuMemFreeHost(self, pointer: int) -> None:
        self._kept.pop(pointer).base.free()

    @_answered
    def cuMemGetInfo(self) -> tuple[int, int]:
        free, total = self.cuda.mem_get_info()
        return int(free), int(total)

    @_answered
    def cuMemcpyHtoDAsync(self, target: int, source: int, nbytes: int, stream: _Stream) -> None:
        self.cuda.memcpy_htod_async(target, _host(source, nbytes), stream.stream)

    @_answered
    def cuMemcpyDtoHAsync(self, target: int, source: int, nbytes: int, stream: _Stream) -> None:
        self.cuda.memcpy_dtoh_async(_host(target, nbytes), source, stream.stream)

    @_answered
    def cuMemcpyDtoDAsync(self, target: int, source: int, nbytes: int, stream: _Stream) -> None:
        self.cuda.memcpy_dtod_async(target, source, nbytes, stream.stream)

    @_answered
    def cuEventCreate(self, flags: int) -> Any:
        return self.cuda.Event(flags)

    @_answered
    def cuEventRecord(self, event: Any, stream: _Stream) -> None:
        event.record(stream.stream)

    @_answered
    def cuEventSynchronize(self, event: Any) -> None:
        event.synchronize()

    @_answered
    def cuEventElapsedTime(self, start: Any, end: Any) -> float:
        return float(start.time_till(end))

    @_answered
    def cuEventDestroy(self, event: Any) -> None:
        """Done with its last reference."""


class _Stream:
    """A stream that gives its number as those of cuda-bindings do."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __int__(self) -> int:
        return int(self.stream.handle)


def _host(address: int, nbytes: int) -> Any:
    """Host memory as a buffer."""
    return (ctypes.c_uint8 * nbytes).from_address(address)
