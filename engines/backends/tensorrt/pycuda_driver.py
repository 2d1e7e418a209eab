"""CUDA through pycuda, for applications that bring it: the same as `cuda_driver`, without graphs. The only file that imports pycuda.

Contexts are pushed and popped by pycuda, which keeps its own stack of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NoReturn

from costroute_rt.error import BackendError

_NON_BLOCKING, _DISABLE_TIMING = 1, 2
"""CUDA's flags for streams and events."""


class PycudaDriver:
    """The first GPU, with one stream of its primary context."""

    @classmethod
    def open(cls) -> PycudaDriver:
        """Raises ImportError without pycuda or the driver library it is linked to, and pycuda's own error without a GPU."""
        import pycuda.driver
        import pycuda.tools

        return cls(pycuda.driver, pycuda.tools.DeviceMemoryPool)

    def __init__(self, cuda: Any, pool: Callable[[], Any]) -> None:
        """cuda: the module `pycuda.driver`; pool: its class of device memory that is reused."""
        self._cuda = cuda
        cuda.init()
        self._context = cuda.Device(0).retain_primary_context()
        restore = self.make_current()
        try:
            self.stream, self._pool = cuda.Stream(_NON_BLOCKING), pool()
        finally:
            restore()
        self.stream_handle = int(self.stream.handle)

    def make_current(self) -> Callable[[], object]:
        self._context.push()
        restore: Callable[[], object] = self._cuda.Context.pop
        return restore

    def allocate(self, nbytes: int) -> tuple[int, object]:
        memory = self._pool.allocate(nbytes)
        return int(memory), memory

    def allocate_pinned(self, nbytes: int) -> tuple[int, object]:
        array = self._cuda.pagelocked_empty(nbytes, "uint8")
        return int(array.ctypes.data), array

    def upload(self, source: int, target: int, nbytes: int) -> None:
        self._cuda.memcpy_htod_async(target, _host(source, nbytes), self.stream)

    def download(self, source: int, target: int, nbytes: int) -> None:
        self._cuda.memcpy_dtoh_async(_host(target, nbytes), source, self.stream)

    def copy(self, source: int, target: int, nbytes: int) -> None:
        self._cuda.memcpy_dtod_async(target, source, nbytes, self.stream)

    def record(self) -> Callable[[], object]:
        event = self._cuda.Event(_DISABLE_TIMING)
        event.record(self.stream)
        wait: Callable[[], object] = event.synchronize
        return wait

    def synchronize(self) -> None:
        self.stream.synchronize()

    def trim(self) -> None:
        self._pool.free_held()

    def memory_info(self) -> tuple[int, int]:
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def capture(self, work: Callable[[], object]) -> NoReturn:
        remedy, packages = "install cuda-core and cuda-bindings", ["cuda-core", "cuda-bindings"]
        raise BackendError("a recorded CUDA graph", "pycuda, which records none", remedy, packages)


def _host(address: int, nbytes: int) -> Any:
    """Host memory as a buffer."""
    return (ctypes.c_uint8 * nbytes).from_address(address)
