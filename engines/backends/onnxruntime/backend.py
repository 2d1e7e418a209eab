"""ONNX Runtime: the default backend.

An engine is the graph after ONNX Runtime's own optimisation (weights unpacked to the precision they are computed in, kernels fused and
laid out for this processor), which it then opens with optimisation switched off. Such a file is a cache for this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from costroute_rt.engines.backends.engine import BuildProgress
from costroute_rt.engines.backends.half_precision import RULES, to_float16
from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.backends.native_path import native_path
from costroute_rt.engines.backends.onnxruntime.arena import NO_ROOM, is_no_room, limit_arena
from costroute_rt.engines.backends.onnxruntime.attention import use_multi_head_attention
from costroute_rt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine
from costroute_rt.engines.backends.onnxruntime.providers import (
    DEVICE_TYPES,
    PROVIDERS,
    import_onnxruntime,
    load_cuda_packages,
    make_absent_error,
    prove_provider,
    real_provider,
    shorten_error,
)
from costroute_rt.engines.backends.polling import run_polled
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.bundle.onnx_file import LARGEST_FILE_BYTES, read_graph_spec
from costroute_rt.engines.bundle.onnx_model import fix_model_axes
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.installation import explain_import
from costroute_rt.error import BackendError, ConfigError, EngineError, Reason
from costroute_rt.regular_file import read_regular

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession, SessionOptions

Provider = str | tuple[str, dict[str, str]]
"""A provider's name in ONNX Runtime, optionally with options."""

_log = logging.getLogger(__name__)

MODEL, DATA = "model.onnx", "model.data"
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}
"""Memory grows by what is needed: every engine has its own, and growing by powers of two wastes it. TF32 is off, so that float32 keeps
its 23-bit fraction on cards since Ampere."""
_MEMORY_SHARE = 0.9
"""Share of the card's memory that one engine may take: beyond it some drivers use host memory, which is many times slower."""
_SMALLEST_EXTERNAL_BYTES = "1024"
_SPIN_US = "30"
"""Longest time that threads spin while they wait for work: about as long as the gaps within a run. With 1 ms, an image took 1.6 times as
long beside one busy process as alone, and 2.7 times beside four (two cores of an AMD EPYC); with 30 us 0.9 and 2.4 times. Without a limit,
those of a new session spin for 40 ms before its first run: opening the nine engines of the postcard family took 450 ms of processor time
instead of 150 ms."""
_INT8_BLOCK = "128"
"""Values that share a scale where ONNX Runtime multiplies by int8 weights and rounds the other side to 8 bits, in blocks. 32, its own
choice, and 64 are slower: a product of 512 x 1280 and 1280 x 1280 takes 11 ms with 32, 7 ms with 128, 20 ms in float32 (one core)."""
_LARGEST_CONSTANT_BYTES = str(4 << 30)
"""Of a tensor that is computed while a graph is built: the largest known embedding has 2.5 GB in float32."""


class OnnxRuntimeBackend:
    """Builds and opens engines with ONNX Runtime."""

    name = "onnxruntime"
    default_provider, default_precision = "cpu", "float32"
    needs_ranges = False

    def __init__(self) -> None:
        """Raises BackendError where ONNX Runtime is not installed, or installed twice."""
        self._ort = import_onnxruntime()
        self.version = str(self._ort.__version__)

    def options(self, spec: BuildSpec) -> str:
        """Without the number of threads: the optimised graph is the same for any."""
        options: dict[str, object] = {"optimization": "all" if _is_host(spec) else "basic"}
        if spec.precision == "float16":
            options |= {"optimization": "none", "rules": RULES}
        if spec.provider == "cuda":
            options |= {**_CUDA_OPTIONS, "memory": _MEMORY_SHARE, "replay": "static"}
        return " ".join(f"{name}={value}" for name, value in options.items())

    def device(self, spec: BuildSpec) -> tuple[str, str]:
        self._requested(spec)
        if spec.provider in DEVICE_TYPES:
            gpu = device.named_gpu()
            prove_provider(spec.provider)
            return gpu
        return " ".join([device.cpu_name(), *device.cpu_features()]), "none"

    def obstacle(self) -> BackendError | None:
        """Always None: a missing provider is an error before anything is built."""
        return None

    def build(self, graph: Path, target: Path, spec: BuildSpec, progress: BuildProgress | None = None) -> None:
        """Optimise `graph` into `target`; for providers that compile by themselves, with device-independent optimisations only."""
        if spec.precision == "float16":
            run_polled(lambda: _write_half(graph, target, spec), progress, what="the conversion to float16")
            return
        options = self._session_options(spec)
        level = self._ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if _is_host(spec) else level.ORT_ENABLE_BASIC
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", _LARGEST_CONSTANT_BYTES)
        options.add_session_config_entry("session.qdq_matmulnbits_block_size", _INT8_BLOCK)
        options.add_session_config_entry("session.disable_prepacking", "1")  # it does not run, and a second copy of the weights may not fit
        options.optimized_model_filepath = native_path(target / MODEL, Reason.CANNOT_BUILD)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", DATA)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", _SMALLEST_EXTERNAL_BYTES)
        for axis, length in spec.shapes:
            options.add_free_dimension_override_by_name(axis, length)

        data = _with_own_attention(graph) if _is_host(spec) else None
        if data is not None:
            folder = native_path(graph.parent, Reason.CANNOT_BUILD)
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)

        def optimise() -> None:
            self._session(graph, options, ["CPUExecutionProvider"], "the graph cannot be built", Reason.CANNOT_BUILD, data)

        flag = getattr(options, "set_load_cancellation_flag", None)  # since ONNX Runtime 1.21
        run_polled(optimise, progress, what="ONNX Runtime", stop=None if flag is None else partial(flag, True))

    def open(self, folder: Path, spec: BuildSpec, key: EngineKey | None = None) -> OnnxRuntimeEngine:
        """Open an engine, and check that the requested provider runs it."""
        options = self._session_options(spec)
        if _is_host(spec):
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = self._requested(spec)
        session, is_replayed = self._open_session(folder / MODEL, options, providers)
        provider = real_provider(session.get_providers(), spec.provider)
        size = sum(path.stat().st_size for path in folder.iterdir() if path.name in (MODEL, DATA))
        return OnnxRuntimeEngine(self._ort, session, provider, folder, size, key, is_replayed=is_replayed)

    def _open_session(self, path: Path, options: SessionOptions, providers: list[str]) -> tuple[InferenceSession, bool]:
        """The session, and whether it replays one recorded CUDA graph: where all shapes are fixed and all of it runs on the card."""
        problem, reason = "the engine cannot be opened", Reason.CANNOT_OPEN
        if providers[0] != PROVIDERS["cuda"] or not _is_static(path):
            return self._session(path, options, _with_options(providers), problem, reason), False
        try:
            return self._session(path, options, _with_options(providers, enable_cuda_graph="1"), problem, reason), True
        except EngineError as error:
            if "graph" not in error.problem.lower():
                raise
            _log.info("%s runs without a CUDA graph: %s", path.parent.name, error.problem)
            return self._session(path, options, _with_options(providers), problem, reason), False

    def open_reference(self, graph: Path, *, is_frugal: bool = False) -> OnnxRuntimeEngine:
        """The graph as it is in the bundle, unoptimised, on the CPU.

        is_frugal: what is not needed any more is given back at once, which takes more time; there is no limit of memory then.
        """
        options = self._session_options(BuildSpec(threads=None))
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.execution_order = self._ort.ExecutionOrder.PRIORITY_BASED  # a weight is cast to float32 when it is needed, not at the start
        if is_frugal:
            options.enable_cpu_mem_arena = False
        else:
            limit_arena(self._ort, options)
        session = self._session(graph, options, ["CPUExecutionProvider"], "the reference graph cannot be opened", Reason.CANNOT_BUILD)
        return OnnxRuntimeEngine(self._ort, session, "cpu", graph.parent, 0, None, shrinks_arena=not is_frugal)

    def _session_options(self, spec: BuildSpec) -> SessionOptions:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = spec.thread_count()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if spec.provider in ("cpu", "directml"):
            # Planned memory comes on top of what the first run took: the second run of a decoder at 512 px raised 347 MB to 523 MB on the
            # processor, and was no faster for it. DirectML refuses it.
            options.enable_mem_pattern = False
        # Threads spin for a moment while a graph runs (a guided step took 6.8 ms instead of 9.8 ms on some machine) and stop when it ends:
        # spinning on would take the cores from the next engine's threads (a decode took 33 ms instead of 19 ms) and from other programs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)  # older releases ignore it
        return options

    def _requested(self, spec: BuildSpec) -> list[str]:
        """The providers to open with; raises ConfigError, or BackendError if this ONNX Runtime was built without the requested one."""
        wanted = PROVIDERS.get(spec.provider)
        if wanted is None:
            raise ConfigError("provider", spec.provider, f"one of {', '.join(PROVIDERS)}")
        if spec.target:
            raise ConfigError("target", spec.target, "none with the backend onnxruntime, which builds for this machine")
        able = ("float32", "float16") if spec.provider in DEVICE_TYPES else ("float32",)
        if spec.precision not in able:
            raise ConfigError("precision", spec.precision, f"{' or '.join(able)} with onnxruntime's provider {spec.provider}")
        if wanted not in self._ort.get_available_providers():
            raise make_absent_error(spec.provider, self._ort.get_available_providers())
        if spec.provider in DEVICE_TYPES:
            load_cuda_packages()
        return list(dict.fromkeys([wanted, PROVIDERS["cpu"]]))

    def _session(
        self,
        path: Path,
        options: SessionOptions,
        providers: Sequence[Provider],
        problem: str,
        reason: Reason,
        data: bytes | None = None,
    ) -> InferenceSession:
        """data: instead of what the file holds."""
        source = native_path(path, reason) if data is None else data
        try:
            return self._ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime has a dozen unrelated exception classes
            if is_no_room(error):
                raise EngineError(f"{problem}: {NO_ROOM}", reason=Reason.NO_MEMORY, path=path) from error
            raise EngineError(f"{problem}: {shorten_error(error)}", reason=reason, path=path) from error


def _is_host(spec: BuildSpec) -> bool:
    return spec.provider == "cpu"


def _with_options(providers: Sequence[str], **more: str) -> list[Provider]:
    """The providers, CUDA with its options."""
    memory = int(_MEMORY_SHARE * device.gpu_memory_bytes())
    limit = {"gpu_mem_limit": str(memory)} if memory else {}
    return [(name, {**_CUDA_OPTIONS, **limit, **more}) if name == PROVIDERS["cuda"] else name for name in providers]


def _with_own_attention(graph: Path) -> bytes | None:
    """The graph with ONNX Runtime's own attention; None if it has no attention, or is not what ONNX Runtime will open either."""
    try:
        return use_multi_head_attention(read_regular(graph, LARGEST_FILE_BYTES))
    except (OSError, ValueError):
        return None  # opening it reports the reason


def _is_static(path: Path) -> bool:
    """Whether every axis of every input and output has one length."""
    try:
        spec = read_graph_spec(path)
    except (OSError, ValueError):
        return False  # opening it reports the reason
    return all(isinstance(axis, int) for side in (spec.inputs, spec.outputs) for each in side.values() for axis in each.shape)


def _write_half(graph: Path, target: Path, spec: BuildSpec) -> None:
    """The graph with its bulk in float16, with known lengths put in; the provider optimises it when it is opened."""
    try:
        import onnx
    except ImportError as error:
        raise explain_import(error, "onnx, to build float16 engines", Fix("install onnx", ("onnx",))) from error

    try:
        model = to_float16(onnx.load(str(graph), load_external_data=False))
        _load_weights(model, graph.parent)
        fix_model_axes(model, dict(spec.shapes))
        onnx.save(model, str(target / MODEL), save_as_external_data=True, location=DATA, size_threshold=int(_SMALLEST_EXTERNAL_BYTES))
    except OSError:
        raise
    except Exception as error:  # onnx and protobuf have classes of their own
        raise EngineError(f"the graph cannot be built: {shorten_error(error)}", reason=Reason.CANNOT_BUILD, path=graph) from error


def _load_weights(model: ModelProto, folder: Path) -> None:
    """Read the initializers from their file; `onnx` refuses files with several hard links, as in a bundle made from another."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    for tensor in filter(uses_external_data, model.graph.initializer):
        info = ExternalDataInfo(tensor)
        with open(folder / info.location, "rb") as file:
            file.seek(info.offset or 0)
            tensor.raw_data = file.read(info.length)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
