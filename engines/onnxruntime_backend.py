"""ONNX Runtime: the only file that imports it, inside functions, so that a bundle can be read where it is not installed.

An engine is the graph after ONNX Runtime's own optimisation (weights unpacked to the precision they are computed in, kernels fused and
laid out for this processor), which it then opens with optimisation switched off. Such a file is a cache for this machine.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines import device
from costroute_rt.engines.bundle_manifest import TensorSpec
from costroute_rt.engines.engine import BuildProgress, BuildSpec, EngineKey, Value, check_feeds, describe_array
from costroute_rt.engines.error import BackendError, ConfigError, EngineError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

_log = logging.getLogger(__name__)

MODEL, DATA = "model.onnx", "model.data"
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_REMEDIES = {
    "cpu": "pip install 'costroute-rt[cpu]'",
    "cuda": "pip install 'costroute-rt[cuda]', and the NVIDIA driver, CUDA and cuDNN it needs; `costroute-rt doctor` shows what is there",
    "tensorrt": "pip install 'costroute-rt[cuda]' and TensorRT's libraries; `costroute-rt doctor` shows what is there",
    "directml": "pip install onnxruntime-directml, on Windows",
    "coreml": "pip install 'costroute-rt[cpu]', on macOS",
}
_DEVICE_TYPES = {"cuda": "cuda", "tensorrt": "cuda"}
"""Providers whose tensors live elsewhere than in host memory, and where."""
_SMALLEST_EXTERNAL_BYTES = "1024"
_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LONGEST_REASON = 300
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}
_TYPES |= {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(bool)": "bool"}


class OnnxRuntimeBackend:
    """Builds and opens engines with ONNX Runtime."""

    name = "onnxruntime"
    default_provider, default_precision = "cpu", "float32"
    needs_ranges = False

    def __init__(self) -> None:
        """Raises BackendError where ONNX Runtime is not installed, or installed twice."""
        self._ort = _import_onnxruntime()
        self.version = str(self._ort.__version__)

    def options(self, spec: BuildSpec) -> str:
        return f"threads={spec.threads} optimization={'all' if _is_host(spec) else 'basic'}"

    def device(self, spec: BuildSpec) -> tuple[str, str]:
        self._requested(spec)
        if spec.provider in _DEVICE_TYPES:
            return device.gpu()
        return " ".join([device.cpu_name(), *device.cpu_features()]), "none"

    def obstacle(self) -> BackendError | None:
        """None: a provider that is not there is an error before anything is built."""
        return None

    def build(self, graph: Path, target: Path, spec: BuildSpec, progress: BuildProgress | None = None) -> None:
        """Optimise `graph` into `target`; for providers that compile by themselves only what every device has in common."""
        options = self._session_options(spec)
        level = self._ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if _is_host(spec) else level.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target / MODEL)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", DATA)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", _SMALLEST_EXTERNAL_BYTES)
        for axis, length in spec.shapes:
            options.add_free_dimension_override_by_name(axis, length)
        self._session(graph, options, ["CPUExecutionProvider"], "the graph cannot be built")

    def open(self, folder: Path, spec: BuildSpec, key: EngineKey | None = None) -> OnnxRuntimeEngine:
        """Open an engine and make sure that what was asked for is what runs."""
        options = self._session_options(spec)
        if _is_host(spec):
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = self._session(folder / MODEL, options, self._requested(spec), "the engine cannot be opened")
        provider = _real_provider(session.get_providers(), spec)
        size = sum(path.stat().st_size for path in folder.iterdir() if path.name in (MODEL, DATA))
        return OnnxRuntimeEngine(self._ort, session, provider, folder, size, key)

    def run_reference(self, graph: Path, feeds: Mapping[str, npt.NDArray[Any]]) -> ReferenceRun:
        """The graph as it is in the bundle, unoptimised, on the CPU."""
        options = self._session_options(BuildSpec(threads=device.default_threads()))
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = self._session(graph, options, ["CPUExecutionProvider"], "the reference graph cannot be opened")
        return ReferenceRun(OnnxRuntimeEngine(self._ort, session, "cpu", graph.parent, 0, None), dict(feeds))

    def _session_options(self, spec: BuildSpec) -> SessionOptions:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = spec.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if spec.provider == "directml":
            options.enable_mem_pattern = False  # DirectML refuses it
        # Threads spin while a graph runs (a guided step took 6.8 ms instead of 9.8 ms on two cores) and stop when it ends: spinning on
        # would take the cores from the next engine's threads (a decode took 33 ms instead of 19 ms) and from every other program.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return options

    def _requested(self, spec: BuildSpec) -> list[str]:
        """The providers to open with; raises ConfigError, or BackendError where this ONNX Runtime was built without the one asked for."""
        wanted = PROVIDERS.get(spec.provider)
        if wanted is None:
            raise ConfigError("provider", spec.provider, f"one of {', '.join(PROVIDERS)}")
        if spec.precision != "float32":
            raise ConfigError("precision", spec.precision, "float32 with the backend onnxruntime")
        if wanted not in self._ort.get_available_providers():
            if not spec.allow_fallback:
                raise BackendError(f"provider {spec.provider}", _names(self._ort.get_available_providers()), _REMEDIES[spec.provider])
            wanted = PROVIDERS["cpu"]
        return list(dict.fromkeys([wanted, PROVIDERS["cpu"]]))

    def _session(self, path: Path, options: SessionOptions, providers: list[str], problem: str) -> InferenceSession:
        try:
            return self._ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime has a dozen unrelated exception classes
            raise EngineError(path, f"{problem}: {_first_line(error)}", "costroute-rt build-engines") from error


class OnnxRuntimeEngine:
    """An open session; outputs stay where the provider computes."""

    def __init__(self, ort: ModuleType, session: InferenceSession, provider: str, folder: Path, size: int, key: EngineKey | None) -> None:
        self.key, self.provider, self.resident_bytes = key, provider, size
        self.inputs = {value.name: _tensor_spec(value) for value in session.get_inputs()}
        self.outputs = {value.name: _tensor_spec(value) for value in session.get_outputs()}
        self._ort, self._folder = ort, folder
        self._session: InferenceSession | None = session
        self._names = list(self.outputs)
        self._device_type = _DEVICE_TYPES.get(provider)

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        if self._session is None:
            raise EngineError(self._folder, "the engine is closed", "open it again")
        check_feeds(self.inputs, {name: self._describe(value) for name, value in feeds.items()})
        try:
            results = self._run_bound(self._session, feeds) if self._device_type else self._session.run(self._names, dict(feeds))
        except Exception as error:  # ONNX Runtime has a dozen unrelated exception classes
            raise EngineError(
                self._folder, f"it failed while running: {_first_line(error)}", "costroute-rt build-engines --force"
            ) from error
        return dict(zip(self._names, results, strict=True))

    def to_device(self, array: npt.NDArray[Any]) -> Value:
        if self._device_type is None:
            return np.ascontiguousarray(array).reshape(np.shape(array))
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array).reshape(np.shape(array)), self._device_type, 0)

    def to_host(self, value: Value) -> npt.NDArray[Any]:
        return np.asarray(value if self._device_type is None else value.numpy())

    def close(self) -> None:
        self._session = None

    def __enter__(self) -> OnnxRuntimeEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _describe(self, value: Value) -> tuple[str, tuple[int, ...]]:
        if self._device_type is None:
            return describe_array(value)
        return _TYPES.get(value.data_type(), value.data_type()), tuple(value.shape())

    def _run_bound(self, session: InferenceSession, feeds: Mapping[str, Value]) -> list[Value]:
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._names:
            binding.bind_output(name, self._device_type, 0)
        session.run_with_iobinding(binding)
        return list(binding.get_outputs())


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """The unoptimised graph with the inputs to compare on."""

    engine: OnnxRuntimeEngine
    feeds: Mapping[str, npt.NDArray[Any]]

    def outputs(self) -> dict[str, npt.NDArray[Any]]:
        return self.engine.run(self.feeds)


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """Whether a provider that ONNX Runtime lists really runs a graph."""

    name: str
    works: bool
    problem: str | None


def check_providers() -> list[ProviderCheck]:
    """Open a graph of one node on each listed provider; being listed does not mean that its libraries are there."""
    backend = OnnxRuntimeBackend()
    short = _short_names()
    return [_check_provider(backend, short[full], full) for full in backend._ort.get_available_providers() if full in short]


def _check_provider(backend: OnnxRuntimeBackend, name: str, full: str) -> ProviderCheck:
    options = backend._session_options(BuildSpec())
    try:
        session = backend._ort.InferenceSession(_RELU, options, providers=[full], enable_fallback=0)
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:  # ONNX Runtime has a dozen unrelated exception classes
        return ProviderCheck(name, False, _first_line(error))
    found = session.get_providers()[0]
    return ProviderCheck(name, found == full, None if found == full else f"{found} runs instead")


def installed_distributions() -> list[str]:
    """Names of the installed packages that each provide the module `onnxruntime`."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or not found.origin:
        return []
    return list_distributions(Path(found.origin).parent.parent)


def list_distributions(site: Path) -> list[str]:
    """The same for one directory of packages."""
    names = {path.name.split("-")[0].replace("_", "-").lower() for path in site.glob("onnxruntime*.dist-info")}
    return sorted(name for name in names if not name.startswith(("onnxruntime-extensions", "onnxruntime-genai", "onnxruntime-ep-")))


def _import_onnxruntime() -> ModuleType:
    installed = installed_distributions()
    if len(installed) > 1:
        remedy = f"they overwrite each other: pip uninstall -y {' '.join(installed)}, then install one of them"
        raise BackendError("one ONNX Runtime", " and ".join(installed), remedy)
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError("ONNX Runtime", f"no usable onnxruntime module ({error})", _REMEDIES["cpu"]) from error
    module: ModuleType = onnxruntime
    return module


def _is_host(spec: BuildSpec) -> bool:
    return spec.provider == "cpu"


def _real_provider(found: list[str], spec: BuildSpec) -> str:
    """Our name for the provider that runs; raises BackendError where it is not the one asked for and no fallback was allowed."""
    short = _short_names()
    real = short.get(found[0], found[0])
    if real != spec.provider:
        if not spec.allow_fallback:
            raise BackendError(f"provider {spec.provider}", f"{real} after opening", _REMEDIES[spec.provider])
        _log.warning("asked for provider %s, running on %s", spec.provider, real)
    return real


def _short_names() -> dict[str, str]:
    return {full: name for name, full in PROVIDERS.items()}


def _names(providers: Iterable[str]) -> str:
    short = _short_names()
    return "only " + ", ".join(short[name] for name in providers if name in short)


def _tensor_spec(value: Any) -> TensorSpec:
    shape = [axis if axis is not None else "?" for axis in value.shape]
    return TensorSpec(_TYPES.get(value.type, value.type), tuple(shape))


def _first_line(error: BaseException) -> str:
    """The last thing ONNX Runtime has to say, without its source positions and codes."""
    lines = _PREFIX.split(str(error).strip())[-1].strip().splitlines()
    return lines[0][:_LONGEST_REASON] if lines else type(error).__name__


_RELU = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""An ONNX model of one node, y = Relu(x), x float32[1]."""
