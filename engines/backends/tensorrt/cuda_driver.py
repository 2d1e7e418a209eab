"""CUDA through cuda.core, as `cuda_memory` needs it. The only file that imports `cuda`.

What cuda.core (1.2) cannot do goes to the driver itself, through cuda.bindings: find out and restore the application's context, which may
be none, report free memory, return a pool's unused memory to the system, and record a graph: if a recording becomes invalid, as with
TensorRT engines that cannot be recorded, its GraphBuilder crashes the process (NVIDIA/cuda-python issue 2834).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from costroute_rt.engines.machine.nvidia import GPU_REMEDY
from costroute_rt.error import BackendError, Reason


class CudaDriver:
    """The first GPU, with one stream of its primary context."""

    @classmethod
    def open(cls) -> CudaDriver:
        """Raises ImportError without cuda-core or cuda-bindings, and an error of theirs without a driver or GPU."""
        from cuda import core
        from cuda.bindings import driver

        return cls(core, driver)

    def __init__(self, core: Any, bindings: Any) -> None:
        """core, bindings: the modules `cuda.core` and `cuda.bindings.driver`."""
        self._core, self._bindings = core, bindings
        device = core.Device(0)
        restore = self.make_current()
        try:
            self.stream = device.create_stream()  # non-blocking unless its options differ
            # The device's stream-ordered pool, which cuda.core sets to keep what is freed; plain allocations on a GPU without pools.
            self._device_memory = device.memory_resource
            # Pinned memory from a pool may be written by the host only after the stream has reached its allocation; this kind at once.
            self._pinned_memory = core.LegacyPinnedMemoryResource()
        finally:
            restore()
        self.stream_handle = int(self.stream.handle)

    def make_current(self) -> Callable[[], object]:
        """Makes the GPU's context the thread's; returns a function that restores the one before, or none."""
        before = self._call("cuCtxGetCurrent")
        self._core.Device(0).set_current()  # cuda.core has one object per thread and device
        return partial(self._call, "cuCtxSetCurrent", before)

    def allocate(self, nbytes: int) -> tuple[int, object]:
        """The address of device memory, and the object that frees it, in the order of the stream, with its last reference."""
        buffer = self._device_memory.allocate(nbytes, stream=self.stream)
        return int(buffer.handle), buffer

    def allocate_pinned(self, nbytes: int) -> tuple[int, object]:
        """The same for host memory that the GPU reads and writes by itself."""
        buffer = self._pinned_memory.allocate(nbytes)
        return int(buffer.handle), buffer

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copies on the stream; CUDA tells addresses of the host and of the device apart."""
        at = self._core.Buffer.from_handle
        at(target, nbytes).copy_from(at(source, nbytes), stream=self.stream)

    upload = download = copy

    def record(self) -> Callable[[], object]:
        """A function that waits for what is on the stream now."""
        wait: Callable[[], object] = self.stream.record().sync
        return wait

    def synchronize(self) -> None:
        self.stream.sync()

    def trim(self) -> None:
        """Returns the pool's unused memory to the system."""
        if isinstance(self._device_memory, self._core.DeviceMemoryResource):
            self._call("cuMemPoolTrimTo", self._device_memory.handle, 0)

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the device."""
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def capture(self, work: Callable[[], object]) -> tuple[Callable[[], object], Callable[[], object]]:
        """Records what `work` puts on the stream; returns functions that launch and destroy the graph."""
        graph, stream = None, self.stream.handle
        self._call("cuStreamBeginCapture", stream, self._bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        try:
            try:
                work()
            finally:
                graph = self._call("cuStreamEndCapture", stream)
            executable = self._call("cuGraphInstantiate", graph, 0)
        finally:
            if graph is not None:
                self._call("cuGraphDestroy", graph)
        return partial(self._call, "cuGraphLaunch", executable, stream), partial(self._call, "cuGraphExecDestroy", executable)

    def _call(self, name: str, *arguments: Any) -> Any:
        """What a function of the driver returns: nothing, a value, or several. Raises BackendError where it fails."""
        result, *values = getattr(self._bindings, name)(*arguments)
        if result != self._bindings.CUresult.CUDA_SUCCESS:
            raise BackendError(f"CUDA's {name}", result.name, GPU_REMEDY, reason=Reason.DRIVER)
        return values[0] if len(values) == 1 else tuple(values)
