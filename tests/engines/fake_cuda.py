"""A GPU's driver and TensorRT's execution context, played by host memory and ONNX Runtime: enough to run engines on."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


class FakeDriver:
    """The functions of cuda.bindings.driver that `cuda_memory` calls; device memory is host memory under another name."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=2)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)

    def __init__(self, capacity_bytes: int = 1 << 30) -> None:
        self.capacity_bytes = capacity_bytes
        self.buffers: dict[int, np.ndarray] = {}
        self.recording: list[Callable[[], object]] | None = None
        self.calls: list[str] = []

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
        return 0, self.capacity_bytes // 2, self.capacity_bytes

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
