"""TensorRT and TensorRT for RTX, whose Python interfaces nearly agree: building engines, and loading them for `tensorrt_engine`.

The only file that imports them, inside functions. Both take precision from the graph, so a float32 graph is first rewritten
(`half_precision`). TensorRT for RTX builds on any machine, for a family of GPUs, and compiles the last part on the card when an engine is
opened; TensorRT builds for the card in this machine.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from costroute_rt.engines.backends.engine import BuildProgress
from costroute_rt.engines.backends.half_precision import RULES, to_float16
from costroute_rt.engines.backends.key import ANY_DRIVER, EngineKey
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.backends.tensorrt.cuda_memory import CudaMemory, open_cuda
from costroute_rt.engines.backends.tensorrt.engine import Interface, Loaded, RuntimeCache, TensorRtEngine, fit_weights
from costroute_rt.engines.bundle.manifest import GraphSpec
from costroute_rt.engines.bundle.onnx_model import fix_model_axes, graph_spec
from costroute_rt.engines.bundle.size import AxisRange
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.durable import write_file
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.installation import Library, explain_import
from costroute_rt.error import BackendError, ConfigError, EngineError, Reason

if TYPE_CHECKING:
    from onnx import ModelProto

_log = logging.getLogger(__name__)

PLAN = "engine.plan"
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_PRECISIONS = ("float16", "float32")
_RTX_TARGETS: dict[str, tuple[str, ...]] = {
    "ampere+": (),  # the default of TensorRT for RTX
    "turing": ("SM75",),
    "ampere": ("SM80", "SM86"),
    "ada": ("SM89",),
    "blackwell": ("SM120", "SM121"),
}
"""Cards an engine is built for, and their compute capabilities."""
_TURING = "sm_75"
_POLL_S = 0.1
_STREAMED_FROM_BYTES = 1 << 30
"""Engines of more weights than this can leave some in the computer's memory, where a card has no room for them (`fit_weights`). All their
weights then pass through that memory, and they open later, so those that fit any card are built without."""
_LONGEST_REASON = 300


class TensorRtBackend:
    """Builds and opens engines with TensorRT, or with TensorRT for RTX."""

    default_provider, default_precision = "cuda", "float16"
    needs_ranges = True

    def __init__(self, name: str) -> None:
        """name: tensorrt or tensorrt-rtx; raises BackendError where it is not installed."""
        self.name = name
        self._trt = _import(name)
        self.version = str(self._trt.__version__)
        self._is_rtx = name == "tensorrt-rtx"

    def options(self, spec: BuildSpec) -> str:
        return f"rules={RULES} streamed_from={_STREAMED_FROM_BYTES >> 20}MiB"

    def device(self, spec: BuildSpec) -> tuple[str, str]:
        """A named family of cards and any driver, for an engine that is not bound to one card."""
        if spec.provider != self.default_provider:
            raise ConfigError("provider", spec.provider, f"{self.default_provider} with the backend {self.name}")
        if spec.precision not in _PRECISIONS:
            raise ConfigError("precision", spec.precision, f"{' or '.join(_PRECISIONS)} with the backend {self.name}")
        target = self._target(spec)
        if target:
            return target, ANY_DRIVER
        open_cuda()
        return device.named_gpu()

    def obstacle(self) -> BackendError | None:
        try:
            open_cuda()
            device.named_gpu()  # what it was proved and timed on
        except BackendError as error:
            return error
        return None

    def build(self, graph: Path, target: Path, spec: BuildSpec, progress: BuildProgress | None = None) -> None:
        """Compile `graph` for the shapes of `spec`; a stop takes effect at the builder's next step, seconds later at most."""
        if not self._is_rtx:
            obstacle = self.obstacle()  # building measures kernels on the card
            if obstacle is not None:
                raise obstacle
        model = _prepare(graph, spec)
        ranges = _ranges_of(model, spec)
        configure = self._configure(spec, target, streams=_weight_bytes(model, spec) >= _STREAMED_FROM_BYTES)
        job = _Job(self._trt, graph, model.SerializeToString(), graph_spec(model), configure, ranges)
        with ThreadPoolExecutor(max_workers=1) as pool:
            future = pool.submit(job.compile)
            try:
                while not wait([future], timeout=_POLL_S).done:
                    if progress is not None:
                        progress(job.share)
            except BaseException:  # on any error, Ctrl-C too, the builder has to end before its thread does
                job.cancelled.set()
                raise
        plan = future.result()
        if progress is not None:
            progress(1.0)
        with open(target / PLAN, "wb") as file:
            file.write(plan)
        Interface(graph_spec(model), ranges).write(target)

    def open(self, folder: Path, spec: BuildSpec, key: EngineKey | None = None) -> TensorRtEngine:
        """Load an engine onto the first GPU; raises BackendError without an NVIDIA driver, or where the GPU cannot be named."""
        memory = open_cuda()
        with memory.using():
            return self._open(memory, folder, key)

    def _open(self, memory: CudaMemory, folder: Path, key: EngineKey | None) -> TensorRtEngine:
        device.named_gpu()
        interface = Interface.read(folder)
        log = _logger(self._trt)
        runtime = self._trt.Runtime(log)
        with open(folder / PLAN, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            self._check_validity(runtime, plan, folder)
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"the engine cannot be loaded: {log.reason()}", reason=Reason.CANNOT_OPEN, path=folder)
        streamed = fit_weights(engine, memory, folder.name if key is None else key.graph)
        cache = RuntimeCache.load(engine, folder) if self._is_rtx else None
        config = self._runtime_config(engine, cache)
        context = engine.create_execution_context(config) if config is not None else engine.create_execution_context()
        if context is None:
            raise EngineError(f"the engine cannot be started: {log.reason()}", reason=Reason.NO_MEMORY, path=folder)
        size = (folder / PLAN).stat().st_size - streamed + int(engine.device_memory_size_v2)
        loaded = Loaded(runtime, engine, context, cache, log)
        return TensorRtEngine(memory, loaded, interface, folder, size, key, captures=not self._is_rtx)

    # The two libraries differ only in what follows, and in `open`.

    def _target(self, spec: BuildSpec) -> str:
        """The cards to build for; empty: the one in this machine."""
        known = tuple(_RTX_TARGETS) if self._is_rtx else ("ampere+",)
        if spec.target and spec.target not in known:
            raise ConfigError("target", spec.target, f"one of {', '.join(known)} with the backend {self.name}")
        if spec.target or not self._is_rtx:
            return spec.target
        return "turing" if device.gpu()[0].endswith(_TURING) else "ampere+"

    def _configure(self, spec: BuildSpec, folder: Path, *, streams: bool = False) -> Callable[[Any], Callable[[], None]]:
        """Sets up a builder configuration; the returned function is called after the build. streams: weights may stay off the card."""
        trt, target = self._trt, self._target(spec)

        def set_up(config: Any) -> Callable[[], None]:
            if spec.precision == "float32":
                config.clear_flag(trt.BuilderFlag.TF32)
            if streams:
                config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
            if self._is_rtx:
                names = _RTX_TARGETS[target]
                if names:
                    config.num_compute_capabilities = len(names)
                for index, name in enumerate(names):
                    config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
                return lambda: None
            if target:
                config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
            return _use_timing_cache(config, folder.parent / f"timing-{_card_digest(self.version)}.cache")

        return set_up

    def _check_validity(self, runtime: Any, plan: mmap.mmap, folder: Path) -> None:
        """Raise EngineError, with the library's diagnosis, for an engine that cannot run on this card."""
        if not self._is_rtx:
            return
        validity, diagnosis = runtime.get_engine_validity(plan)
        if validity == self._trt.EngineValidity.INVALID:
            raise EngineError(f"the engine is not for this device: {diagnosis}", reason=Reason.CANNOT_OPEN, path=folder)

    def _runtime_config(self, engine: Any, cache: RuntimeCache | None) -> Any:
        if cache is None:
            return None
        cache.config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        cache.config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        return cache.config


@dataclass
class _Job:
    """One build, in a thread of its own: there Ctrl-C cannot end up in one of the library's calls to us."""

    trt: ModuleType
    graph: Path
    model: bytes
    spec: GraphSpec
    configure: Callable[[Any], Callable[[], None]]
    ranges: tuple[AxisRange, ...]
    cancelled: threading.Event = field(default_factory=threading.Event)
    share: float = 0.0
    """The finished share of the build's steps, 0 to 1."""

    def compile(self) -> Any:
        """The engine as one block of memory; raises EngineError where the graph cannot be parsed or built."""
        trt, log = self.trt, _logger(self.trt)
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        if not parser.parse(self.model, str(self.graph)):
            self._fail(_parser_reason(parser) or log.reason())
        config = builder.create_builder_config()
        finish = self.configure(config)
        config.progress_monitor = monitor = _monitor(trt, self)
        self._add_profile(builder, network, config)
        plan = builder.build_serialized_network(network, config)
        del monitor
        if plan is None:
            self._fail(log.reason())
        finish()
        return plan

    def _fail(self, reason: str) -> NoReturn:
        raise EngineError(f"the graph cannot be built: {reason}", reason=Reason.CANNOT_BUILD, path=self.graph)

    def _add_profile(self, builder: Any, network: Any, config: Any) -> None:
        """The lengths that free axes may have: least, usual, most."""
        lengths = {axis: each for axis, *each in self.ranges}
        specs = {name: port.shape for name, port in self.spec.inputs.items()}
        profile, is_needed = builder.create_optimization_profile(), False
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            if -1 in tuple(tensor.shape):
                is_needed = True
                shapes = ([lengths[axis][which] if isinstance(axis, str) else axis for axis in specs[tensor.name]] for which in range(3))
                profile.set_shape(tensor.name, *shapes)
        if is_needed:
            config.add_optimization_profile(profile)


def _import(name: str) -> ModuleType:
    from importlib import import_module

    module = _MODULES[name]
    fix = Fix(f"install the {name} extra, and cpu beside it", (f"costroute-rt[cpu,{name}]",))
    library = Library(module, fix, title=f"backend {name}", names=("Builder", "Runtime", "__version__"), packages=rf"{name}(-cu\d+)?")
    return library.load(lambda: import_module(module))


def _prepare(graph: Path, spec: BuildSpec) -> ModelProto:
    """The graph as the libraries accept it: known lengths put in, bytes only at its edges, in the requested precision."""
    try:
        import onnx
    except ImportError as error:
        raise explain_import(error, "onnx, to prepare graphs", Fix("install onnx", ("onnx",))) from error

    try:
        model = onnx.load(str(graph), load_external_data=False)
        fix_model_axes(model, dict(spec.shapes))
        _cast_to_bytes_last(model)
        return to_float16(model) if spec.precision == "float16" else model
    except Exception as error:  # onnx and protobuf have classes of their own
        raise EngineError(f"the graph cannot be prepared: {_shorten(str(error))}", reason=Reason.CANNOT_BUILD, path=graph) from error


def _cast_to_bytes_last(model: ModelProto) -> None:
    """Moves nodes that rearrange bytes before the cast to bytes: neither library accepts bytes in the middle of a graph."""
    from onnx import NodeProto, TensorProto

    nodes = model.graph.node
    ends = {value.name for value in model.graph.output}
    casts = {node.output[0]: index for index, node in enumerate(nodes) if node.op_type == "Cast" and _cast_type(node) == TensorProto.UINT8}
    uses = [name for node in nodes for name in node.input]
    for last, node in enumerate(nodes):
        first = casts.get(node.input[0]) if node.op_type in ("Transpose", "Reshape") else None
        if first is None or node.output[0] not in ends or uses.count(node.input[0]) != 1:
            continue
        move, cast = NodeProto(), NodeProto()
        move.CopyFrom(node)
        cast.CopyFrom(nodes[first])
        move.input[0], move.output[0] = cast.input[0], f"{node.output[0]}/number"
        cast.input[0], cast.output[0] = move.output[0], node.output[0]
        nodes[first].CopyFrom(move)
        nodes[last].CopyFrom(cast)


def _cast_type(node: Any) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")


def _weight_bytes(model: ModelProto, spec: BuildSpec) -> int:
    """About how much memory the weights take in the requested precision."""
    return sum(int(prod(tensor.dims)) for tensor in model.graph.initializer) * (2 if spec.precision == "float16" else 4)


def _ranges_of(model: ModelProto, spec: BuildSpec) -> tuple[AxisRange, ...]:
    """The ranges of the axes that are still free; raises ConfigError for an axis without a range."""
    known = {each[0]: each for each in spec.ranges}
    free = dict.fromkeys(axis for port in graph_spec(model).inputs.values() for axis in port.shape if isinstance(axis, str))
    for axis in free:
        if axis not in known:
            raise ConfigError("shapes", f"without {axis}", f"a length or a range for each free axis: {', '.join(free)}")
    return tuple(known[axis] for axis in free)


def _use_timing_cache(config: Any, path: Path) -> Callable[[], None]:
    """Load kernel times of earlier builds on this card; the returned function saves those of this build."""
    blob = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(blob)
    if not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)

    def keep() -> None:
        with suppress(OSError):
            write_file(path, bytes(config.get_timing_cache().serialize()))

    return keep


def _card_digest(version: str) -> str:
    """Identifies card, driver and version, whose kernel times differ."""
    return hashlib.sha256(" ".join([*device.gpu(), version]).encode()).hexdigest()[:16]


def _logger(trt: ModuleType) -> Any:
    """Passes the library's log on to ours, and keeps its errors for exceptions."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            _log.debug("%s", message)

        def reason(self) -> str:
            return _shorten(self.errors[0] if self.errors else "no reason given")

    return Log()


def _monitor(trt: ModuleType, job: _Job) -> Any:
    """Follows the builder's phases, each a part of one step of another, and stops it where the job was cancelled."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str | None, int]] = {}
            self.done: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name], self.done[phase_name] = (parent_phase, max(num_steps, 1)), 0

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.done:
                self.done[phase_name] = step + 1
                job.share = max(job.share, min(self.share(phase_name), 1.0))
            return not job.cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)
            self.done.pop(phase_name, None)

        def share(self, name: str) -> float:
            """The finished share of the whole build, as of that phase."""
            parent, steps = self.phases[name]
            inner = self.done[name] / steps
            while parent in self.phases:
                name, (parent, steps) = parent, self.phases[parent]
                inner = (self.done[name] + inner) / steps
            return inner

    return Monitor()


def _parser_reason(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return _shorten("; ".join(f"{each.node_operator() or 'graph'}: {each.desc()}" for each in errors[:1]))


def _shorten(text: str) -> str:
    """One line, without source positions."""
    plain = re.sub(r"\(?In \w+ at [^)]*\)?|\S+\.cpp:\d+:?", "", text)
    return " ".join(plain.split())[:_LONGEST_REASON]
