"""A GPU made of host memory, with the parts of cuda.core, cuda.bindings and pycuda that reach it, and TensorRT's execution context, made of
ONNX Runtime: enough to run engines on. `test_cuda_memory` compares these parts with the installed cuda.core."""

from __future__ import annotations

import ctypes
from collections import defaultdict, deque
from collections.abc import Callable
from enum import IntEnum
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.backends.tensorrt.cuda_driver import CudaDriver
from costroute_rt.engines.backends.tensorrt.cuda_memory import CudaMemory
from costroute_rt.engines.backends.tensorrt.pycuda_driver import PycudaDriver
from costroute_rt.engines.machine.nvidia import has_cuda_library

needs_cuda_core = pytest.mark.skipif(
    find_spec("cuda") is None or find_spec("cuda.core") is None, reason="needs cuda-core: pip install costroute-rt[tensorrt-rtx]"
)
needs_no_driver = pytest.mark.skipif(has_cuda_library(), reason="tests a machine without an NVIDIA driver, and this one has one")


class FakeGpu:
    """Host memory under another name; work is done when the host waits for it, or recorded while a graph is captured."""

    def __init__(self, capacity_bytes: int = 1 << 30, free_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.free_bytes = capacity_bytes // 2 if free_bytes is None else free_bytes
        self.buffers: dict[int, np.ndarray] = {}
        """Device and pinned memory that the system has given away, by address."""
        self.unused: defaultdict[int, list[int]] = defaultdict(list)
        """By size, the addresses in the memory pool that nobody holds."""
        self.pending: deque[Callable[[], object]] = deque()
        """On the stream; `submitted` counts what ever was."""
        self.submitted = 0
        self.recording: list[Callable[[], object]] | None = None
        self.is_capture_invalid = False
        self.calls: list[str] = []
        self.contexts: list[Any] = []
        """Of all threads together, the current one last."""

    def allocate(self, size: int) -> int:
        """Raises MemoryError where there is no room."""
        if sum(len(buffer) for buffer in self.buffers.values()) + size > self.capacity_bytes:
            raise MemoryError
        buffer = np.full(size, 0xAA, np.uint8)
        self.buffers[buffer.ctypes.data] = buffer
        return int(buffer.ctypes.data)

    def free(self, address: int) -> None:
        """Leaks what is freed without a context, as the driver's synchronous calls do."""
        if self.contexts:
            del self.buffers[address]

    def allocate_pooled(self, size: int) -> int:
        assert size > 0
        assert self.recording is None, "the pool cannot allocate while its stream is captured"
        return self.unused[size].pop() if self.unused[size] else self.allocate(size)

    def free_pooled(self, address: int) -> None:
        if self.recording is not None:
            self.is_capture_invalid = True  # a graph may only free what it allocated itself
        else:
            self.unused[len(self.buffers[address])].append(address)

    def trim_pool(self) -> None:
        for addresses in self.unused.values():
            while addresses:
                del self.buffers[addresses.pop()]

    def copy(self, source: int, target: int, size: int) -> None:
        """Host memory that is not pinned is read at once, other memory when its turn comes."""
        assert size > 0
        self.calls.append("copy")
        if source not in self.buffers:
            taken = ctypes.create_string_buffer(ctypes.string_at(source, size), size)
            self.do(lambda: ctypes.memmove(target, taken, size))
        else:
            self.do(lambda: ctypes.memmove(target, source, size))

    def do(self, work: Callable[[], object]) -> None:
        """In its turn on the stream, or when the graph that is being recorded is launched."""
        if self.recording is None:
            self.pending.append(work)
            self.submitted += 1
        else:
            self.recording.append(work)

    def wait(self, call: str, until: int | None = None) -> None:
        """Does what the stream has, or as much of what was ever submitted."""
        self.calls.append(call)
        while self.pending and (until is None or self.submitted - len(self.pending) < until):
            self.pending.popleft()()


class FakeCudaError(Exception):
    """What cuda.core raises: its class is not public."""


class FakeBindings:
    """Functions of cuda.bindings.driver."""

    class CUresult(IntEnum):
        CUDA_SUCCESS = 0
        CUDA_ERROR_ILLEGAL_ADDRESS = 700
        CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901

    class CUstreamCaptureMode(IntEnum):
        CU_STREAM_CAPTURE_MODE_RELAXED = 2

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self.result = self.CUresult.CUDA_SUCCESS

    def cuCtxGetCurrent(self) -> tuple[int, Any]:
        return self.result, self._gpu.contexts[-1] if self._gpu.contexts else None

    def cuCtxSetCurrent(self, ctx: Any) -> tuple[int]:
        """Replaces the context at the top of the thread's stack, or removes it."""
        del self._gpu.contexts[-1:]
        if ctx is not None:
            self._gpu.contexts.append(ctx)
        return (self.result,)

    def cuMemPoolTrimTo(self, pool: Any, minBytesToKeep: int) -> tuple[int]:
        assert (pool, minBytesToKeep) == ("the pool", 0)
        self._gpu.trim_pool()
        return (self.result,)

    def cuMemGetInfo(self) -> tuple[int, int, int]:
        return self.result, self._gpu.free_bytes, self._gpu.capacity_bytes

    def cuStreamBeginCapture(self, hStream: int, mode: int) -> tuple[int]:
        assert (self._gpu.recording, mode) == (None, 2)
        self._gpu.recording, self._gpu.is_capture_invalid = [], False
        return (self.result,)

    def cuStreamEndCapture(self, hStream: int) -> tuple[int, Any]:
        recorded, self._gpu.recording = self._gpu.recording, None
        return (self.CUresult(901), None) if self._gpu.is_capture_invalid else (self.result, recorded)

    def cuGraphInstantiate(self, hGraph: Any, flags: int) -> tuple[int, Any]:
        return self.result, list(hGraph)

    def cuGraphDestroy(self, hGraph: Any) -> tuple[int]:
        assert hGraph is not None, "an invalid recording leaves no graph"
        self._gpu.calls.append("cuGraphDestroy")
        return (self.result,)

    def cuGraphLaunch(self, hGraphExec: Any, hStream: int) -> tuple[int]:
        self._gpu.calls.append("cuGraphLaunch")
        for work in hGraphExec:
            self._gpu.do(work)
        return (self.result,)

    def cuGraphExecDestroy(self, hGraphExec: Any) -> tuple[int]:
        self._gpu.calls.append("cuGraphExecDestroy")
        return (self.result,)


class FakeBuffer:
    def __init__(self, handle: int, size: int, free: Callable[[int], object] | None = None) -> None:
        self.handle, self.size, self._free = handle, size, free

    @staticmethod
    def from_handle(ptr: int, size: int) -> FakeBuffer:
        return FakeBuffer(ptr, size)

    def copy_from(self, src: FakeBuffer, *, stream: FakeStream) -> None:
        assert self.size == src.size, "buffer sizes mismatch"
        stream.gpu.copy(src.handle, self.handle, self.size)

    def __del__(self) -> None:
        if self._free is not None:
            self._free(self.handle)


class FakeDeviceMemoryResource:
    handle = "the pool"

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def allocate(self, size: int, *, stream: FakeStream) -> FakeBuffer:
        try:
            return FakeBuffer(self._gpu.allocate_pooled(size), size, self._gpu.free_pooled)
        except MemoryError:
            raise FakeCudaError("CUDA_ERROR_OUT_OF_MEMORY: unable to allocate enough memory") from None


class FakeLegacyPinnedMemoryResource:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def allocate(self, size: int, *, stream: FakeStream | None = None) -> FakeBuffer:
        return FakeBuffer(self._gpu.allocate(size), size, self._gpu.free)


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu, self._until = gpu, gpu.submitted

    def sync(self) -> None:
        self._gpu.wait("Event.sync", self._until)


class FakeStream:
    handle = 7

    def __init__(self, gpu: FakeGpu) -> None:
        assert gpu.contexts, "a stream is made in the current context"
        self.gpu = gpu

    def sync(self) -> None:
        self.gpu.wait("Stream.sync")

    def record(self, event: FakeEvent | None = None, options: Any = None) -> FakeEvent:
        self.gpu.calls.append("Stream.record")
        return FakeEvent(self.gpu)


class FakeDevice:
    def __init__(self, gpu: FakeGpu, device_id: int) -> None:
        assert device_id == 0
        self._gpu = gpu
        self.memory_resource = FakeDeviceMemoryResource(gpu)

    def set_current(self, ctx: Any = None) -> None:
        self._gpu.contexts[-1:] = ["the primary context"]

    def create_stream(self, obj: Any = None, options: Any = None) -> FakeStream:
        return FakeStream(self._gpu)


class FakeCore:
    """The module cuda.core."""

    Buffer, DeviceMemoryResource = FakeBuffer, FakeDeviceMemoryResource

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.Device: Callable[[int], FakeDevice] = lambda device_id: FakeDevice(gpu, device_id)
        self.LegacyPinnedMemoryResource = lambda: FakeLegacyPinnedMemoryResource(gpu)


class FakePycuda:
    """The parts of pycuda.driver that `pycuda_driver` calls; as there, objects stand for what they hold."""

    class Error(Exception):
        pass

    def __init__(self, gpu: FakeGpu) -> None:
        error = self.Error

        class Allocation:
            def __init__(self, address: int, free: Callable[[int], object]) -> None:
                self._address, self._free = address, free

            def __int__(self) -> int:
                return self._address

            def __del__(self) -> None:
                self._free(self._address)

        class DeviceMemoryPool:
            """Of pycuda.tools."""

            def __init__(self) -> None:
                assert gpu.contexts, "a pool is made in the current context"

            def allocate(self, size: int) -> Allocation:
                try:
                    return Allocation(gpu.allocate_pooled(size), gpu.free_pooled)
                except MemoryError:
                    raise error("memory_pool::allocate failed: out of memory") from None

            def free_held(self) -> None:
                gpu.trim_pool()

        def pagelocked_empty(shape: int, dtype: str) -> Any:
            memory = Allocation(gpu.allocate(shape), gpu.free)
            array = np.ctypeslib.as_array((ctypes.c_uint8 * shape).from_address(int(memory)))
            return SimpleNamespace(ctypes=array.ctypes, base=memory)

        class Context:
            def push(self) -> None:
                gpu.contexts.append("the primary context")

            @staticmethod
            def pop() -> None:
                gpu.contexts.pop()

        class Device:
            def __init__(self, ordinal: int) -> None:
                assert ordinal == 0

            def retain_primary_context(self) -> Context:
                return Context()

        class Stream:
            handle = 7

            def __init__(self, flags: int) -> None:
                assert gpu.contexts, "a stream is made in the current context"
                assert flags == 1, "non-blocking"

            def synchronize(self) -> None:
                gpu.wait("Stream.sync")

        class Event:
            def __init__(self, flags: int) -> None:
                assert flags == 2, "without timing"

            def record(self, stream: Stream) -> None:
                gpu.calls.append("Stream.record")
                self.until = gpu.submitted

            def synchronize(self) -> None:
                gpu.wait("Event.sync", self.until)

        def copy(target: int, source: int, nbytes: int, stream: Any) -> None:
            assert isinstance(stream, Stream)
            gpu.copy(source, target, nbytes)

        self.init: Callable[[], object] = lambda: None
        self.Context, self.Device, self.Stream, self.Event, self.DeviceMemoryPool = Context, Device, Stream, Event, DeviceMemoryPool
        self.pagelocked_empty = pagelocked_empty
        self.mem_get_info = lambda: (gpu.free_bytes, gpu.capacity_bytes)
        self.memcpy_htod_async = lambda dest, src, stream: copy(dest, ctypes.addressof(src), ctypes.sizeof(src), stream)
        self.memcpy_dtoh_async = lambda dest, src, stream: copy(ctypes.addressof(dest), src, ctypes.sizeof(dest), stream)
        self.memcpy_dtod_async = copy


def make_memory(through: str = "cuda.core", **settings: Any) -> tuple[CudaMemory, FakeGpu]:
    """The memory of a fake GPU, and that GPU."""
    gpu = FakeGpu(**settings)
    if through == "cuda.core":
        return CudaMemory(CudaDriver(FakeCore(gpu), FakeBindings(gpu))), gpu
    cuda = FakePycuda(gpu)
    return CudaMemory(PycudaDriver(cuda, cuda.DeviceMemoryPool)), gpu


def gpu_of(memory: CudaMemory) -> FakeGpu:
    """The GPU behind it, through cuda.core."""
    assert isinstance(memory.driver, CudaDriver)
    gpu = memory.driver._core.gpu
    assert isinstance(gpu, FakeGpu)
    return gpu


class FakeEngine:
    """TensorRT's engine as far as its memory goes: weights that are streamed need some to be copied to."""

    def __init__(self, context: FakeContext, weights: int, workspace: int, scratch: int) -> None:
        self.streamable_weights_size, self.workspace, self.scratch = weights, workspace, scratch
        self.context = context
        self.budget, self.is_started = weights, False

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self.budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, budget: int) -> None:
        if self.is_started or not self.streamable_weights_size:
            raise RuntimeError("no budget can be set")
        self.budget = budget

    @property
    def device_memory_size_v2(self) -> int:
        return self.workspace + (self.scratch if self.budget < self.streamable_weights_size else 0)

    def create_execution_context(self) -> FakeContext:
        self.is_started = True
        return self.context


class FakeContext:
    """Computes an ONNX graph from and to the addresses it was given."""

    def __init__(self, gpu: FakeGpu, graph: str) -> None:
        import onnxruntime

        self.gpu = gpu
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.enqueued = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def infer_shapes(self) -> list[str]:
        zeros = {value.name: np.zeros(self.shapes[value.name], np.float32) for value in self.session.get_inputs()}
        for value, result in zip(self.session.get_outputs(), self.session.run(None, zeros), strict=True):
            self.shapes[value.name] = result.shape
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.enqueued += 1
        self.gpu.do(self._compute)
        return True

    def _compute(self) -> None:
        feeds = {value.name: self._view(value.name).copy() for value in self.session.get_inputs()}
        for value, result in zip(self.session.get_outputs(), self.session.run(None, feeds), strict=True):
            self._view(value.name)[...] = result

    def _view(self, name: str) -> np.ndarray:
        shape = self.shapes[name]
        size = 4 * int(np.prod(shape))
        raw = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(raw, np.float32).reshape(shape)
