"""Memory and work of an NVIDIA GPU: buffers, one stream, copies, events, captured graphs. The only file that imports `cuda`.

Everything goes through one stream of the device's primary context, so that what one engine gives the next may take, and a buffer let go may
be filled again at once. Whoever puts work on the stream does so within `CudaMemory.using`. Copies between host and device are counted.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.backends.tensorrt.pycuda_driver import find_pycuda
from costroute_rt.engines.machine.nvidia import NO_DRIVER
from costroute_rt.error import BackendError, Reason

DRIVER_REMEDY = "install the NVIDIA driver for this GPU"
_PAGEABLE_BYTES = 64 << 10
"""Up to this size the driver takes a copy of host memory before it returns; larger arrays go through pinned memory."""
_ALIGNMENT = 256


@dataclass(slots=True)
class Transfers:
    """Copies between host and device since the start."""

    to_device: int = 0
    to_device_bytes: int = 0
    to_host: int = 0
    to_host_bytes: int = 0


class DeviceArray:
    """An array in the GPU's memory, not to be written to by those who are given it; freed with its last reference."""

    __slots__ = ("_memory", "dtype", "pointer", "shape")

    def __init__(self, memory: CudaMemory, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._memory, self.dtype, self.shape = memory, dtype, shape
        self.pointer = memory.allocate(self.nbytes)

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    def __del__(self) -> None:
        if hasattr(self, "pointer"):  # not where there was no memory left
            self._memory.free(self.pointer, self.nbytes)


@dataclass(slots=True)
class _Pinned:
    """Host memory the GPU reads and writes by itself."""

    pointer: int
    array: npt.NDArray[np.uint8]
    is_read: Any
    """Event: the copy that last used it has ended."""


@dataclass
class CudaMemory:
    """The first GPU. Made by `open_cuda`; calls may come from any thread, within `using`, which engines enter for the whole of a run."""

    driver: Any
    """`cuda.bindings.driver`, or what stands for it."""
    context: Any
    stream: Any
    transfers: Transfers = field(default_factory=Transfers)
    _free: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _pinned: dict[int, _Pinned] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _depth: int = 0
    """How often the thread that holds the lock is within `using`."""

    @property
    def stream_handle(self) -> int:
        """The stream as a number, as TensorRT takes it."""
        return int(self.stream)

    @contextmanager
    def using(self) -> Iterator[None]:
        """The GPU to oneself: one thread at a time. Afterwards the CUDA context that the application had is the thread's again."""
        with self.lock:
            if self._depth == 0:
                self.call("cuCtxPushCurrent", self.context)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.call("cuCtxPopCurrent")

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the driver and returns what it gives: nothing, a value, or several; raises BackendError where it fails."""
        return _checked(self.driver, name, *arguments)

    def allocate(self, nbytes: int) -> int:
        """The address of a buffer; one let go before is taken again."""
        size = _rounded(nbytes)
        if self._free[size]:
            return self._free[size].pop()
        try:
            return int(self.call("cuMemAlloc", size))
        except BackendError:
            self.trim()
            return int(self.call("cuMemAlloc", size))

    def free(self, pointer: int, nbytes: int) -> None:
        """Lets a buffer go; what the stream still has to do with it is done before what comes next."""
        self._free[_rounded(nbytes)].append(pointer)

    def trim(self) -> None:
        """Gives the buffers that nobody holds back to the system."""
        self.synchronize()
        for pointers in self._free.values():
            while pointers:
                self.call("cuMemFree", pointers.pop())
        while self._pinned:
            pinned = self._pinned.popitem()[1]
            self.call("cuMemFreeHost", pinned.pointer)
            self.call("cuEventDestroy", pinned.is_read)

    def to_device(self, array: npt.NDArray[Any]) -> DeviceArray:
        """A copy of a host array."""
        source = np.ascontiguousarray(array).reshape(array.shape)
        value = DeviceArray(self, source.dtype, source.shape)
        if 0 < source.nbytes <= _PAGEABLE_BYTES:
            self.call("cuMemcpyHtoDAsync", value.pointer, source.ctypes.data, source.nbytes, self.stream)
        elif source.nbytes:
            pinned = self._staging(source.nbytes)
            self.call("cuEventSynchronize", pinned.is_read)
            pinned.array[: source.nbytes] = source.reshape(-1).view(np.uint8)
            self.call("cuMemcpyHtoDAsync", value.pointer, pinned.pointer, source.nbytes, self.stream)
            self.call("cuEventRecord", pinned.is_read, self.stream)
        self.transfers.to_device += 1
        self.transfers.to_device_bytes += source.nbytes
        return value

    def to_host(self, value: DeviceArray) -> npt.NDArray[Any]:
        """A copy of a device array, after everything the stream still had to do."""
        result = np.empty(value.shape, value.dtype)
        if value.nbytes:
            pinned = self._staging(value.nbytes)
            self.call("cuMemcpyDtoHAsync", pinned.pointer, value.pointer, value.nbytes, self.stream)
            self.synchronize()
            result.reshape(-1).view(np.uint8)[:] = pinned.array[: value.nbytes]
        self.transfers.to_host += 1
        self.transfers.to_host_bytes += value.nbytes
        return result

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """From one device address to another, on the stream."""
        if nbytes:
            self.call("cuMemcpyDtoDAsync", target, source, nbytes, self.stream)

    def synchronize(self) -> None:
        """Waits until the stream has nothing left to do."""
        self.call("cuStreamSynchronize", self.stream)

    def room_bytes(self) -> tuple[int, int]:
        """What the device has left, and what it has in all."""
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)

    def time_ms(self, work: Callable[[], object]) -> float:
        """Milliseconds that the GPU needs for what `work` puts on the stream."""
        start, end = (self.call("cuEventCreate", 0) for _ in range(2))
        try:
            self.call("cuEventRecord", start, self.stream)
            work()
            self.call("cuEventRecord", end, self.stream)
            self.call("cuEventSynchronize", end)
            return float(self.call("cuEventElapsedTime", start, end))
        finally:
            for event in (start, end):
                self.call("cuEventDestroy", event)

    def capture(self, work: Callable[[], object]) -> CapturedGraph:
        """What `work` puts on the stream, recorded instead of done. Raises as `work` does, and BackendError where it cannot be recorded."""
        self.call("cuStreamBeginCapture", self.stream, self.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        graph = None
        try:
            try:
                work()
            finally:
                graph = self.call("cuStreamEndCapture", self.stream)
            return CapturedGraph(self, self.call("cuGraphInstantiate", graph, 0))
        finally:
            if graph is not None:
                self.call("cuGraphDestroy", graph)

    def _staging(self, nbytes: int) -> _Pinned:
        """Pinned memory of at least that size."""
        size = 1 << max(nbytes - 1, _PAGEABLE_BYTES).bit_length()
        if size not in self._pinned:
            import ctypes

            pointer = int(self.call("cuMemAllocHost", size))
            array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
            self._pinned[size] = _Pinned(pointer, array, self.call("cuEventCreate", self.driver.CUevent_flags.CU_EVENT_DISABLE_TIMING))
        return self._pinned[size]


@dataclass(slots=True)
class CapturedGraph:
    """Recorded work that is started by one call."""

    memory: CudaMemory
    executable: Any

    def launch(self) -> None:
        self.memory.call("cuGraphLaunch", self.executable, self.memory.stream)

    def close(self) -> None:
        self.memory.call("cuGraphExecDestroy", self.executable)


def find_obstacle() -> BackendError | None:
    """What keeps CUDA from working in this process; None: nothing."""
    try:
        open_cuda()
    except BackendError as error:
        return error
    return None


@lru_cache(maxsize=1)
def open_cuda() -> CudaMemory:
    """The first GPU's memory, the same for all engines of the process.

    Raises BackendError without cuda-bindings or pycuda, driver or GPU.
    """
    driver = _find_driver()
    try:
        _checked(driver, "cuInit", 0)
        context = _checked(driver, "cuDevicePrimaryCtxRetain", _checked(driver, "cuDeviceGet", 0))
        memory = CudaMemory(driver, context, stream=None)
        with memory.using():
            memory.stream = memory.call("cuStreamCreate", driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
    except BackendError as error:
        raise BackendError("an NVIDIA GPU", error.found, DRIVER_REMEDY, reason=Reason.DRIVER) from error
    except Exception as error:  # cuda-bindings has a class of its own for a driver library that is not there
        raise BackendError("an NVIDIA GPU", NO_DRIVER, DRIVER_REMEDY, reason=Reason.DRIVER) from error
    return memory


def _find_driver() -> Any:
    """cuda-bindings, or pycuda where only that is there."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        found = find_pycuda()
        if found is None:
            raise BackendError(
                "CUDA from Python", f"no usable cuda.bindings ({error})", "install cuda-bindings", ["cuda-bindings"]
            ) from error
        return found
    return driver


def _checked(driver: Any, name: str, *arguments: Any) -> Any:
    result, *values = getattr(driver, name)(*arguments)
    if result != driver.CUresult.CUDA_SUCCESS:
        text = driver.cuGetErrorString(result)[1]
        found = text.decode(errors="replace") if isinstance(text, bytes) else str(result)
        raise BackendError(f"CUDA's {name}", found, "close what else uses the GPU", reason=Reason.DRIVER)
    return (values[0] if len(values) == 1 else tuple(values)) if values else None


def _rounded(nbytes: int) -> int:
    return max(_ALIGNMENT, -(-nbytes // _ALIGNMENT) * _ALIGNMENT)
