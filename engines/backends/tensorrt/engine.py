"""Running an engine of TensorRT or TensorRT for RTX: buffers at fixed addresses, and calls recorded as CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.backends.engine import Value
from costroute_rt.engines.backends.feed import check_feeds
from costroute_rt.engines.backends.key import EngineKey, make_engine_error
from costroute_rt.engines.backends.tensorrt.cuda_memory import CapturedGraph, CudaMemory, DeviceArray
from costroute_rt.engines.bundle.graph_spec import to_json
from costroute_rt.engines.bundle.manifest import GraphSpec
from costroute_rt.engines.bundle.manifest_reader import parse_graph_spec
from costroute_rt.engines.bundle.section import canonical_json, parse_section
from costroute_rt.engines.bundle.size import AxisRange
from costroute_rt.engines.machine.durable import write_file
from costroute_rt.error import BackendError, ConfigError, EngineError, Reason

_log = logging.getLogger(__name__)

INTERFACE, RUNTIME_CACHE = "interface.json", "runtime.cache"
_KEPT_FREE = 1 / 8
"""Share of a card's memory that an engine whose weights do not fit leaves to those opened after it."""


class TensorRtEngine:
    """A loaded engine. It works on buffers of its own that never move, so that its work can be recorded once and started by one call.

    Calls from several threads wait for one another: all engines of the process share one stream.
    """

    provider = "cuda"

    def __init__(
        self,
        memory: CudaMemory,
        loaded: Loaded,
        interface: Interface,
        folder: Path,
        size: int,
        key: EngineKey | None,
        *,
        captures: bool,
    ) -> None:
        """captures: record the work as a CUDA graph here, where the library does not by itself."""
        self.key, self.resident_bytes = key, size
        self.inputs, self.outputs, self.ranges = interface.spec.inputs, interface.spec.outputs, interface.ranges
        self._memory, self._folder, self._captures = memory, folder, captures
        self._loaded: Loaded | None = loaded
        self._binding: _Binding | None = None

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """As the protocol has it: returns when the GPU is done."""
        with self._memory.using():
            return self._run(feeds)

    def _run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        if self._loaded is None:
            raise make_engine_error("the engine is closed", Reason.CLOSED, self._folder, self.key)
        check_feeds(self.inputs, {name: _describe(value) for name, value in feeds.items()})
        shapes = {name: tuple(value.shape) for name, value in feeds.items()}
        if self._binding is None or self._binding.shapes != shapes:
            self._check_ranges(shapes)
            self._unbind()
            self._binding = self._bind(self._loaded, shapes)
        return self._binding.run(feeds)

    def to_device(self, array: npt.NDArray[Any]) -> Value:
        with self._memory.using():
            return self._memory.to_device(np.asarray(array))

    def to_host(self, value: Value) -> npt.NDArray[Any]:
        with self._memory.using():
            return self._memory.to_host(value)

    def close(self) -> None:
        with self._memory.using():
            if self._loaded is None:
                return
            self._memory.synchronize()
            self._unbind()
            if self._loaded.cache is not None:
                self._loaded.cache.save()
            self._loaded = None
            self._memory.trim()

    def __enter__(self) -> TensorRtEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check_ranges(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ConfigError for a length the engine was not built for, naming the nearest it was built for."""
        ranges = {axis: (least, most) for axis, least, _, most in self.ranges}
        for name, shape in shapes.items():
            for axis, length in zip(self.inputs[name].shape, shape, strict=True):
                least, most = ranges.get(str(axis), (length, length))
                if not least <= length <= most:
                    nearest = least if length < least else most
                    expected = f"{axis} from {least} to {most}, the nearest being {nearest}; engines for other sizes have to be built"
                    raise ConfigError(name, f"{axis} {length}", expected, reason=Reason.SIZE_MISSING)

    def _bind(self, loaded: Loaded, shapes: Mapping[str, tuple[int, ...]]) -> _Binding:
        """Buffers for one set of shapes."""
        context = loaded.context
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                problem = f"it does not take {name} of shape {list(shape)}: {loaded.log.reason()}"
                raise make_engine_error(problem, Reason.FAILED, self._folder, self.key)
        missing = context.infer_shapes()
        if missing:
            raise make_engine_error(f"it does not give the shapes of {', '.join(missing)}", Reason.FAILED, self._folder, self.key)
        inputs = {name: DeviceArray(self._memory, np.dtype(self.inputs[name].dtype), shape) for name, shape in shapes.items()}
        outputs = {
            name: DeviceArray(self._memory, np.dtype(spec.dtype), tuple(context.get_tensor_shape(name)))
            for name, spec in self.outputs.items()
        }
        for name, buffer in (inputs | outputs).items():
            context.set_tensor_address(name, buffer.pointer)
        return _Binding(self._memory, loaded, self._folder, self.key, dict(shapes), inputs, outputs, captures=self._captures)

    def _unbind(self) -> None:
        if self._binding is not None:
            self._memory.synchronize()
            self._binding.close()
        self._binding = None


@dataclass
class _Binding:
    """An engine's buffers for one set of shapes, and its work on them."""

    memory: CudaMemory
    loaded: Loaded
    folder: Path
    key: EngineKey | None
    shapes: dict[str, tuple[int, ...]]
    inputs: dict[str, DeviceArray]
    outputs: dict[str, DeviceArray]
    captures: bool
    fed: dict[str, DeviceArray] = field(default_factory=dict)
    """The value that each input buffer is a copy of; the text stays the same from step to step."""
    graph: CapturedGraph | None = None
    has_run: bool = False

    def run(self, feeds: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        """Copies of the outputs, complete: the GPU is done."""
        for name, value in feeds.items():
            if self.fed.get(name) is not value:
                self.memory.copy(value.pointer, self.inputs[name].pointer, value.nbytes)
                self.fed[name] = value
        self._work()
        results = {name: DeviceArray(self.memory, buffer.dtype, buffer.shape) for name, buffer in self.outputs.items()}
        for name, buffer in self.outputs.items():
            self.memory.copy(buffer.pointer, results[name].pointer, buffer.nbytes)
        self.memory.synchronize()
        return results

    def close(self) -> None:
        if self.graph is not None:
            self.graph.close()

    def _work(self) -> None:
        if self.captures and self.has_run and self.graph is None:
            try:
                self.graph = self.memory.capture(self._enqueue)
            except (BackendError, EngineError) as error:
                _log.warning("%s runs without a CUDA graph: %s", self.folder, error)
                self.captures = False
        if self.graph is not None:
            self.graph.launch()
        else:
            self._enqueue()  # the first time outside a recording: libraries load what they need then
        self.has_run = True

    def _enqueue(self) -> None:
        if not self.loaded.context.execute_async_v3(self.memory.stream_handle):
            problem = f"it failed while running: {self.loaded.log.reason()}"
            raise make_engine_error(problem, Reason.FAILED, self.folder, self.key)


def fit_weights(engine: Any, memory: CudaMemory, name: str) -> int:
    """Leaves those weights in the computer's memory that the GPU has no room for, to be copied over at every call; returns their bytes.

    engine: deserialized, without a context yet.
    """
    weights = int(engine.streamable_weights_size)
    if not weights:  # built without
        return 0
    memory.trim()
    free, total = memory.room_bytes()
    room = free - int(_KEPT_FREE * total)
    engine.weight_streaming_budget_v2 = weights
    if weights + int(engine.device_memory_size_v2) <= room:
        return 0
    engine.weight_streaming_budget_v2 = 0  # so that the working memory includes the space that streamed weights are copied to
    kept = min(max(room - int(engine.device_memory_size_v2), 0), weights)
    engine.weight_streaming_budget_v2 = kept
    _log.warning(
        "%s: the GPU has room for %.2f GB of its %.2f GB of weights; the others are copied to it at every call, which takes time",
        name,
        kept / 1e9,
        weights / 1e9,
    )
    return weights - kept


@dataclass(frozen=True, slots=True)
class Loaded:
    """The library's objects; each needs those before it."""

    runtime: Any
    engine: Any
    context: Any
    cache: RuntimeCache | None
    log: Any


@dataclass
class RuntimeCache:
    """What TensorRT for RTX compiled on this card, kept beside the engine; the library itself refuses that of another card or driver."""

    config: Any
    cache: Any
    path: Path
    size: int

    @classmethod
    def load(cls, engine: Any, folder: Path) -> RuntimeCache:
        config, path, size = engine.create_runtime_config(), folder / RUNTIME_CACHE, 0
        cache = config.create_runtime_cache()
        with suppress(OSError):
            blob = path.read_bytes()
            size = len(blob) if cache.deserialize(blob) else 0
        config.set_runtime_cache(cache)
        return cls(config, cache, path, size)

    def save(self) -> None:
        """Only beside a complete engine: an additional file would damage one that is being built."""
        blob = bytes(self.cache.serialize())
        if len(blob) != self.size and (self.path.parent / "manifest.json").exists():
            with suppress(OSError):
                write_file(self.path, blob)


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs and outputs of an engine, with the names of free axes, which the library does not keep."""

    spec: GraphSpec
    ranges: tuple[AxisRange, ...]

    def write(self, folder: Path) -> None:
        """Into a file beside the engine."""
        (folder / INTERFACE).write_bytes(canonical_json({**to_json(self.spec), "ranges": [list(each) for each in self.ranges]}))

    @classmethod
    def read(cls, folder: Path) -> Interface:
        """Raises EngineError where the file is not as `write` wrote it."""
        path = folder / INTERFACE

        def fail(problem: str) -> NoReturn:
            raise EngineError(problem, reason=Reason.CANNOT_OPEN, path=path)

        try:
            section = parse_section(path.read_bytes(), fail)
        except OSError as error:
            fail(f"a file of the engine cannot be read: {error.strerror}")
        ranges = tuple((str(axis), int(least), int(usual), int(most)) for axis, least, usual, most in section.items("ranges"))
        return cls(parse_graph_spec(section), ranges)


def _describe(value: object) -> tuple[str, tuple[int, ...]]:
    if not isinstance(value, DeviceArray):
        raise ConfigError("feed", type(value).__name__, "a tensor that to_device made of a numpy array")
    return str(value.dtype), value.shape
