"""A GPU's driver and TensorRT's execution context, played by host memory and ONNX Runtime: enough to run engines on."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from costroute_rt.engines.backends.tensorrt.cuda_memory import CudaMemory
from costroute_rt.engines.backends.tensorrt.pycuda_driver import PycudaDriver


class FakeDriver:
    """The functions of cuda.bindings.driver that `cuda_memory` calls; device memory is host memory under another name."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=2)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)

    def __init__(self, capacity_bytes: int = 1 << 30, free_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.free_bytes = capacity_bytes // 2 if free_bytes is None else free_bytes
        self.buffers: dict[int, np.ndarray] = {}
        self.recording: list[Callable[[], object]] | None = None
        self.calls: list[str] = []
        self.contexts: list[Any] = []
        """Of all threads together, the current one last."""

    def cuCtxPushCurrent(self, context: Any) -> tuple[int]:
        self.contexts.append(context)
        return (0,)

    def cuCtxPopCurrent(self) -> tuple[int, Any]:
        return 0, self.contexts.pop()

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        """Contexts, streams and events: nothing to do, all is done at once."""
        if not name.startswith("cu"):
            raise AttributeError(name)
        self.calls.append(name)
        return lambda *_: (0, 1) if name.endswith("Create") else (0,)

    def cuStreamSynchronize(self, stream: Any) -> tuple[int]:
        self.calls.append("cuStreamSynchronize")
        return (0,)

    def cuMemAlloc(self, size: int) -> tuple[int, int]:
        if sum(len(buffer) for buffer in self.buffers.values()) + size > self.capacity_bytes:
            return 2, 0
        buffer = np.full(size, 0xAA, np.uint8)
        self.buffers[buffer.ctypes.data] = buffer
        return 0, buffer.ctypes.data

    cuMemAllocHost = cuMemAlloc

    def cuMemFree(self, pointer: int) -> tuple[int]:
        del self.buffers[pointer]
        return (0,)

    cuMemFreeHost = cuMemFree

    def cuGetErrorString(self, result: int) -> tuple[int, bytes]:
        return 0, b"out of memory" if result == 2 else b"unknown"

    def cuEventElapsedTime(self, start: int, end: int) -> tuple[int, float]:
        return 0, 1.5

    def cuMemGetInfo(self) -> tuple[int, int, int]:
        return 0, self.free_bytes, self.capacity_bytes

    def _copy(self, target: int, source: int, size: int, stream: Any) -> tuple[int]:
        self.calls.append("cuMemcpy")
        self.do(lambda: ctypes.memmove(target, source, size))
        return (0,)

    cuMemcpyHtoDAsync = cuMemcpyDtoHAsync = cuMemcpyDtoDAsync = _copy

    def cuStreamBeginCapture(self, stream: Any, mode: int) -> tuple[int]:
        self.recording = []
        return (0,)

    def cuStreamEndCapture(self, stream: Any) -> tuple[int, Any]:
        recorded, self.recording = self.recording, None
        return 0, recorded

    def cuGraphInstantiate(self, graph: Any, flags: int) -> tuple[int, Any]:
        return 0, graph

    def cuGraphLaunch(self, graph: Any, stream: Any) -> tuple[int]:
        self.calls.append("cuGraphLaunch")
        for work in graph:
            work()
        return (0,)

    def do(self, work: Callable[[], object]) -> None:
        """Now, or when the graph that is being recorded is launched."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)


class FakePycuda:
    """The parts of pycuda.driver that `pycuda_driver` calls, on a driver that is played; as there, objects stand for what they hold."""

    class Error(Exception):
        pass

    def __init__(self, driver: FakeDriver) -> None:
        played, error = driver, self.Error

        class Allocation:
            def __init__(self, nbytes: int) -> None:
                code, self.pointer = played.cuMemAlloc(nbytes)
                if code:
                    raise error("cuMemAlloc failed: out of memory")

            def __int__(self) -> int:
                return self.pointer

            def free(self) -> None:
                played.cuMemFree(self.pointer)

        def pagelocked_empty(shape: int, dtype: str) -> Any:
            memory = Allocation(shape)
            array = np.ctypeslib.as_array((ctypes.c_uint8 * shape).from_address(int(memory)))
            return SimpleNamespace(ctypes=array.ctypes, base=memory)

        class Context:
            def push(self) -> None:
                played.cuCtxPushCurrent(self)

            @staticmethod
            def pop() -> None:
                played.cuCtxPopCurrent()

        class Device:
            def __init__(self, ordinal: int) -> None:
                played.calls.append(f"Device {ordinal}")

            def retain_primary_context(self) -> Context:
                return Context()

        class Stream:
            handle = 7

            def __init__(self, flags: int) -> None:
                assert played.contexts, "a stream is made in the current context"
                assert flags == FakeDriver.CUstream_flags.CU_STREAM_NON_BLOCKING

            def synchronize(self) -> None:
                played.cuStreamSynchronize(self)

        class Event:
            def __init__(self, flags: int) -> None:
                played.calls.append("cuEventCreate")

            def __del__(self) -> None:
                played.calls.append("cuEventDestroy")

            def record(self, stream: Stream) -> None:
                pass

            def synchronize(self) -> None:
                pass

            def time_till(self, end: Event) -> float:
                return played.cuEventElapsedTime(0, 0)[1]

        def copy(target: Any, source: Any, nbytes: int, stream: Any) -> None:
            assert isinstance(stream, Stream)
            played._copy(target, source, nbytes, stream)

        self.init: Callable[[int], object] = lambda flags: None
        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event
        self.mem_alloc, self.pagelocked_empty = Allocation, pagelocked_empty
        self.mem_get_info = lambda: played.cuMemGetInfo()[1:]
        self.memcpy_htod_async = lambda dest, src, stream: copy(dest, ctypes.addressof(src), ctypes.sizeof(src), stream)
        self.memcpy_dtoh_async = lambda dest, src, stream: copy(ctypes.addressof(dest), src, ctypes.sizeof(dest), stream)
        self.memcpy_dtod_async = copy


def make_memory(through: str = "cuda-bindings", **settings: Any) -> tuple[CudaMemory, FakeDriver]:
    """A GPU's memory on a driver that is played, and that driver."""
    driver = FakeDriver(**settings)
    if through == "cuda-bindings":
        return CudaMemory(driver, context=1, stream=7), driver
    found = PycudaDriver(FakePycuda(driver))  # type: ignore[arg-type]
    memory = CudaMemory(found, context=FakePycuda(driver).Context(), stream=None)
    with memory.using():
        memory.stream = memory.call("cuStreamCreate", 1)
    return memory, driver


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

    def __init__(self, driver: FakeDriver, graph: str) -> None:
        import onnxruntime

        self.driver = driver
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
        self.driver.do(self._compute)
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
