"""Memory and work of an NVIDIA GPU: arrays, copies between host and device, which are counted, and captured graphs.

Everything goes through one stream of the device's primary context, so that one engine's results are ready for the next, and memory that is
freed can be used again at once. Whoever puts work on the stream does so within `CudaMemory.using`.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.backends.tensorrt.cuda_driver import CudaDriver
from costroute_rt.engines.backends.tensorrt.pycuda_driver import PycudaDriver
from costroute_rt.engines.machine.nvidia import DRIVER_REMEDY, GPU_REMEDY, NO_DRIVER, has_cuda_library
from costroute_rt.error import BackendError, Reason

_PAGEABLE_BYTES = 64 << 10
"""Up to this size the driver takes a copy of host memory before it returns; larger arrays go through pinned memory."""


@contextmanager
def _cuda_errors() -> Iterator[None]:
    """Raises BackendError for what cuda.core or pycuda raise within; their classes have no common base, and cuda.core exports none."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise BackendError("work on the NVIDIA GPU", str(error), GPU_REMEDY, reason=Reason.DRIVER) from error


@dataclass(slots=True)
class Transfers:
    """Copies between host and device since the start."""

    to_device: int = 0
    to_device_bytes: int = 0
    to_host: int = 0
    to_host_bytes: int = 0


class DeviceArray:
    """An array in the GPU's memory, not to be written to by those who are given it; freed with its last reference."""

    __slots__ = ("_buffer", "_memory", "dtype", "pointer", "shape")

    def __init__(self, memory: CudaMemory, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._memory, self.dtype, self.shape = memory, dtype, shape
        self.pointer, self._buffer = memory.allocate(self.nbytes)

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    def __del__(self) -> None:
        if hasattr(self, "_buffer"):  # missing where the allocation failed
            self._memory.released.append(self._buffer)


@dataclass
class CudaMemory:
    """The first GPU. Made by `open_cuda`; calls may come from any thread, within `using`, which engines enter for the whole of a run."""

    driver: CudaDriver | PycudaDriver
    transfers: Transfers = field(default_factory=Transfers)
    lock: threading.RLock = field(default_factory=threading.RLock)
    released: list[object] = field(default_factory=list)
    """Buffers of arrays that are gone, freed at the next allocation: an array can go in any thread, where the context is not current, and
    while the stream is captured, when a free would become a part of the graph."""
    _pinned: tuple[int, int, object] = (0, 0, None)
    """Address, size and owner of the host memory that large copies go through."""
    _wait_for_upload: Callable[[], object] | None = None

    @property
    def stream_handle(self) -> int:
        """The stream as a number, as TensorRT takes it."""
        return self.driver.stream_handle

    @contextmanager
    def using(self) -> Iterator[None]:
        """The GPU for one thread at a time. Afterwards the thread's CUDA context is again that of the application."""
        with self.lock:
            with _cuda_errors():
                restore = self.driver.make_current()
            try:
                yield
            finally:
                with _cuda_errors():
                    restore()

    @_cuda_errors()
    def allocate(self, nbytes: int) -> tuple[int, object]:
        """The address of a buffer, and what keeps it."""
        self.released.clear()
        size = max(nbytes, 1)
        try:
            return self.driver.allocate(size)
        except Exception:
            self.trim()
            return self.driver.allocate(size)

    @_cuda_errors()
    def trim(self) -> None:
        """Returns the memory that nobody holds to the system."""
        self.released.clear()
        self.driver.synchronize()
        self._pinned = (0, 0, None)
        self.driver.trim()

    @_cuda_errors()
    def to_device(self, array: npt.NDArray[Any]) -> DeviceArray:
        """A copy of a host array."""
        source = np.ascontiguousarray(array).reshape(array.shape)
        value = DeviceArray(self, source.dtype, source.shape)
        if 0 < source.nbytes <= _PAGEABLE_BYTES:
            self.driver.upload(source.ctypes.data, value.pointer, source.nbytes)
        elif source.nbytes:
            staging = self._staging(source.nbytes)
            ctypes.memmove(staging, source.ctypes.data, source.nbytes)
            self.driver.upload(staging, value.pointer, source.nbytes)
            self._wait_for_upload = self.driver.record()
        self.transfers.to_device += 1
        self.transfers.to_device_bytes += source.nbytes
        return value

    @_cuda_errors()
    def to_host(self, value: DeviceArray) -> npt.NDArray[Any]:
        """A copy of a device array, after everything the stream still had to do."""
        result = np.empty(value.shape, value.dtype)
        if value.nbytes:
            staging = self._staging(value.nbytes)
            self.driver.download(value.pointer, staging, value.nbytes)
            self.driver.synchronize()
            ctypes.memmove(result.ctypes.data, staging, value.nbytes)
        self.transfers.to_host += 1
        self.transfers.to_host_bytes += value.nbytes
        return result

    @_cuda_errors()
    def copy(self, source: int, target: int, nbytes: int) -> None:
        """From one device address to another, on the stream."""
        if nbytes:
            self.driver.copy(source, target, nbytes)

    @_cuda_errors()
    def synchronize(self) -> None:
        """Waits until the stream has nothing left to do."""
        self.driver.synchronize()

    @_cuda_errors()
    def room_bytes(self) -> tuple[int, int]:
        """Free and total memory of the device."""
        return self.driver.memory_info()

    def capture(self, work: Callable[[], object]) -> CapturedGraph:
        """What `work` puts on the stream, recorded instead of done. Raises as `work` does, and BackendError where it cannot be recorded."""
        return CapturedGraph(*self.driver.capture(work))

    def _staging(self, nbytes: int) -> int:
        """The address of pinned memory of at least that size that no copy still reads."""
        if self._wait_for_upload is not None:
            self._wait_for_upload()
        if nbytes > self._pinned[1]:
            self._pinned = (0, 0, None)
            size = 1 << max(nbytes - 1, _PAGEABLE_BYTES).bit_length()
            address, owner = self.driver.allocate_pinned(size)
            self._pinned = (address, size, owner)
        return self._pinned[0]


@dataclass(frozen=True, slots=True)
class CapturedGraph:
    """Recorded work that is started by one call."""

    launch: Callable[[], object]
    close: Callable[[], object]


@lru_cache(maxsize=1)
def open_cuda() -> CudaMemory:
    """The first GPU's memory, the same for all engines of the process.

    Raises BackendError without cuda-core or pycuda, driver or GPU.
    """
    try:
        return CudaMemory(_open_driver())
    except ImportError as error:
        found, packages = f"no usable cuda.core ({error})", ["cuda-core", "cuda-bindings"]
        raise BackendError("CUDA from Python", found, "install cuda-core and cuda-bindings", packages) from error
    except BackendError:
        raise
    except Exception as error:  # of classes that `_cuda_errors` describes
        found = str(error) if has_cuda_library() else NO_DRIVER
        raise BackendError("an NVIDIA GPU", found, DRIVER_REMEDY, reason=Reason.DRIVER) from error


def _open_driver() -> CudaDriver | PycudaDriver:
    """Through cuda.core, or through pycuda where only that is installed."""
    try:
        return CudaDriver.open()
    except ImportError as error:
        try:
            return PycudaDriver.open()
        except ImportError:
            raise error from None
