"""OpenVINO, imported inside functions only, so that a bundle can be read where it is not installed.

An engine is the compiled model as OpenVINO exports it. Such a blob is bound to OpenVINO's version and to the device's instruction set, as
the key says and OpenVINO checks once more. It loads in about a quarter of the time that compiling the same model takes.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.backends.engine import BuildProgress
from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.backends.native_path import native_path
from costroute_rt.engines.backends.openvino.angle import split_angles
from costroute_rt.engines.backends.openvino.engine import OpenVinoEngine, short_reason
from costroute_rt.engines.backends.openvino.group_norm import normalize_by_channel
from costroute_rt.engines.backends.openvino.upsampling import join_upsampling
from costroute_rt.engines.backends.openvino.weight import keep_weights_packed
from costroute_rt.engines.backends.polling import run_polled
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.bundle.graph_spec import fix_axes, to_json
from costroute_rt.engines.bundle.manifest import GraphSpec
from costroute_rt.engines.bundle.manifest_reader import parse_graph_spec
from costroute_rt.engines.bundle.onnx_file import RELU, read_graph_spec
from costroute_rt.engines.bundle.section import canonical_json, parse_section
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.diagnosis import Finding
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.installation import Library
from costroute_rt.engines.machine.telemetry import without_openvino_telemetry
from costroute_rt.error import BackendError, ConfigError, EngineError, Reason

BLOB, INTERFACE = "model.blob", "interface.json"
"""A blob may have several names for one input, and none for its axes, so this file has the names."""
DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
"""OpenVINO's device by the name of our provider."""
FIXES = {
    "cpu": Fix("install OpenVINO again", install=("openvino",), reason=Reason.DAMAGED),
    "gpu": Fix("install the driver of your Intel GPU with its OpenCL runtime, or use the provider cpu", instead={"provider": "cpu"}),
    "npu": Fix("install the driver of your Intel NPU, or use the provider cpu", instead={"provider": "cpu"}),
}
LIBRARY = Library(
    "openvino",
    Fix.extra("openvino"),
    title="OpenVINO",
    names=("Core", "__version__"),
    packages="openvino(-nightly)?",
)
ANGLES = "angles.blob"
"""The model of sines and cosines that compute in float32, beside one of fewer bits; absent where there are none."""
_ANGLE_CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
_PRECISIONS = {"float32": ("f32", "FP32"), "bfloat16": ("bf16", "BF16"), "float16": ("f16", "FP16")}
"""Our name of a precision: OpenVINO's type, and the capability of a device that has it."""


class OpenVinoBackend:
    """Builds and opens engines with OpenVINO."""

    name = "openvino"
    default_provider, default_precision = "cpu", "float32"
    needs_ranges = False

    def __init__(self) -> None:
        """Raises BackendError where OpenVINO is not installed."""
        self._ov = _import_openvino()
        self._core = _core()
        self.version = str(self._ov.__version__)

    def options(self, spec: BuildSpec) -> str:
        """Without the number of threads: an engine computes with as many as it is opened with, whatever number it was built with.

        Its bytes prove nothing, as two builds with the same number differ too.
        """
        angles = [] if spec.precision == "float32" else ["angles=float32"]
        changes = ["norms=by channel", "upsampling=joined"] if spec.provider == "cpu" else []
        return ", ".join(["hint=latency", "weights=packed", *changes, *angles])

    def device(self, spec: BuildSpec) -> tuple[str, str]:
        """As the protocol has it; raises ConfigError too for a precision that the device does not compute in."""
        name = self._device(spec)
        if name == "CPU":
            return " ".join([device.cpu_name(), *device.cpu_features()]), "none"
        known = self._core.get_property(name, "SUPPORTED_PROPERTIES")
        driver = [str(self._core.get_property(name, each)) for each in sorted(known) if each.endswith("DRIVER_VERSION")]
        facts = [str(self._core.get_property(name, each)) for each in ("FULL_DEVICE_NAME", "DEVICE_ARCHITECTURE") if each in known]
        return " ".join(facts), " ".join(driver) or "none"

    def obstacle(self) -> BackendError | None:
        """Always None: a missing device is an error before anything is built."""
        return None

    def build(self, graph: Path, target: Path, spec: BuildSpec, progress: BuildProgress | None = None) -> None:
        """Compile `graph` for the device and export the result into `target`."""
        name = self._device(spec)
        file = native_path(graph, Reason.CANNOT_BUILD)
        try:
            model, interface = self._core.read_model(file), fix_axes(read_graph_spec(graph), dict(spec.shapes))
            if spec.shapes:
                model.reshape({name: [_dimension(axis) for axis in each.shape] for name, each in interface.inputs.items()})
            keep_weights_packed(model)
            if name == "CPU":
                speed_up_on_cpu(self._ov, model)
            split = None if spec.precision == "float32" else split_angles(self._ov, model)
            angles, rest = split or (None, model)
            blob = run_polled(
                lambda: self._core.compile_model(rest, name, self._config(name, spec)).export_model(), progress, what="OpenVINO"
            )
            if angles is not None:
                (target / ANGLES).write_bytes(self._core.compile_model(angles, name, _ANGLE_CONFIG).export_model().getbuffer())
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"the graph cannot be built: {short_reason(error)}", reason=Reason.CANNOT_BUILD, path=graph) from error
        (target / BLOB).write_bytes(blob.getbuffer())
        (target / INTERFACE).write_bytes(canonical_json(to_json(interface)))

    def open(self, folder: Path, spec: BuildSpec, key: EngineKey | None = None) -> OpenVinoEngine:
        """Open an engine, and check that the requested device and precision run it."""
        name = self._device(spec)
        try:
            interface = _read_interface(folder / INTERFACE)
            # A blob does not keep the precision it was exported with: left out here, the device would choose its own.
            compiled, mapped = self._import(folder / BLOB, name, self._config(name, spec))
            angles = self._core.import_model((folder / ANGLES).read_bytes(), name, _ANGLE_CONFIG) if (folder / ANGLES).exists() else None
        except (RuntimeError, ValueError, OSError) as error:  # ValueError: an empty file
            raise EngineError(f"the engine cannot be opened: {short_reason(error)}", reason=Reason.CANNOT_OPEN, path=folder) from error
        _check_precision(compiled, spec)
        provider = _real_provider(compiled, spec)
        ports = [port for model in (compiled, angles) if model is not None for port in (*model.inputs, *model.outputs)]
        strangers = {*interface.inputs, *interface.outputs}.difference(*(port.names for port in ports))
        if strangers:
            problem = f"the engine cannot be opened: it has no port named {', '.join(sorted(strangers))}"
            raise EngineError(problem, reason=Reason.CANNOT_OPEN, path=folder)
        return OpenVinoEngine(self._ov, compiled, angles, interface, provider, folder, (folder / BLOB).stat().st_size, key, mapped)

    def _import(self, blob: Path, name: str, config: Mapping[str, Any]) -> tuple[Any, Any]:
        """The compiled model, and the mapped file that it may read weights from as long as it exists.

        Where the file is read instead, opening 3.4 GB takes 10 s, not 2.5 s, and the model has a copy of its weights. Pages that were read
        are given back: the plugin keeps its own form of most weights (3.8 GB became 1.4 GB for a text encoder of SDXL). It reads those it
        needs again.
        """
        file = np.memmap(blob, np.uint8, "c")  # "c": OpenVINO wants an array that can be written
        mapped = self._ov.Tensor(file, shared_memory=True)
        try:
            compiled = self._core.import_model(mapped, name, config)
        except RuntimeError:
            del mapped, file  # the error would keep the file open
            raise
        _forget_pages(file)
        return compiled, mapped

    def _device(self, spec: BuildSpec) -> str:
        """OpenVINO's name of the device to use; raises ConfigError, or BackendError if it is missing."""
        wanted = DEVICES.get(spec.provider)
        if wanted is None:
            raise ConfigError("provider", spec.provider, f"one of {', '.join(DEVICES)}")
        if spec.target:
            raise ConfigError("target", spec.target, "none with the backend openvino, which builds for this machine")
        found = _found_devices() if wanted != "CPU" else ("CPU",)
        if wanted not in found:
            names = ", ".join(name for name, each in DEVICES.items() if each in found)
            raise FIXES[spec.provider].make_error(f"provider {spec.provider}", f"only {names}{_why_absent(wanted)}")
        capabilities = self._core.get_property(wanted, "OPTIMIZATION_CAPABILITIES")
        able = [name for name, (_, capability) in _PRECISIONS.items() if capability in capabilities]
        if spec.precision not in able:
            raise ConfigError("precision", spec.precision, f"one of {', '.join(able)}, which {spec.provider} can compute in")
        return wanted

    def _config(self, name: str, spec: BuildSpec) -> dict[str, Any]:
        """Settings of a device: always with the precision, as OpenVINO defaults to bfloat16 where the processor has it."""
        common = {"INFERENCE_PRECISION_HINT": _PRECISIONS[spec.precision][0], "PERFORMANCE_HINT": "LATENCY"}
        if name != "CPU":
            return common
        # A thread that is bound to a core waits for it while another program has it.
        return {**common, "INFERENCE_NUM_THREADS": spec.thread_count(), "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}


def speed_up_on_cpu(ov: ModuleType, model: Any) -> None:
    """Replace operators that take OpenVINO long on a CPU by others with the same result; ov: the module."""
    normalize_by_channel(ov, model)
    join_upsampling(ov, model)


def _import_openvino() -> ModuleType:
    """The module, without its usage reports; raises BackendError where it is missing, damaged, hidden or installed twice."""
    return LIBRARY.load(_import)


def _import() -> ModuleType:
    with without_openvino_telemetry():
        import openvino
    module: ModuleType = openvino
    return module


def check_devices() -> dict[str, str | None]:
    """By our name of each device that OpenVINO lists: why it cannot run a graph of one node; None if it can."""
    return {name: _try_device(each) for name, each in DEVICES.items() if each in _found_devices()}


def diagnose(title: str, version: str) -> Iterator[Finding]:
    """The devices that run a tiny graph, and those only listed; title: of the finding about OpenVINO itself."""
    problems = check_devices()
    working = [name for name, problem in problems.items() if problem is None]
    yield Finding(title, f"{version}, works on {', '.join(working)}" if working else f"{version}, works on no device")
    for name, problem in problems.items():
        if problem is not None:
            yield Finding(f"openvino {name}", "listed, does not work", problem, FIXES[name])


def _try_device(name: str) -> str | None:
    try:
        request = _core().compile_model(_core().read_model(RELU), name).create_infer_request()
        request.infer({"x": np.ones(1, np.float32)})
    except RuntimeError as error:
        return short_reason(error)
    return None


@lru_cache(maxsize=1)
def _core() -> Any:
    """The one Core of this process: it keeps the devices' plugins loaded."""
    return _import_openvino().Core()


@lru_cache(maxsize=1)
def _found_devices() -> tuple[str, ...]:
    """The devices among CPU, GPU and NPU that were found; a second GPU counts as GPU."""
    return tuple(dict.fromkeys(name.split(".")[0] for name in _core().available_devices))


def _why_absent(name: str) -> str:
    """Why OpenVINO does not list a device, such as a library that its plugin lacks."""
    try:
        _core().get_property(name, "AVAILABLE_DEVICES")
    except RuntimeError as error:
        return f": {short_reason(error)}"
    return ""


def _check_precision(compiled: Any, spec: BuildSpec) -> None:
    """Raise BackendError if the device computes in another precision than the requested one."""
    found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if found != _PRECISIONS[spec.precision][0]:
        instead = {"precision": "float32"}
        raise BackendError(f"precision {spec.precision}", f"{found} after opening", "use the precision float32", instead=instead)


def _forget_pages(file: npt.NDArray[np.uint8]) -> None:
    """Give back the memory of a mapped file whose content nobody has changed, where the system can."""
    mapping = getattr(file, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _real_provider(compiled: Any, spec: BuildSpec) -> str:
    """Our name for the device that runs it; raises BackendError if it is not the requested one."""
    found = compiled.get_property("EXECUTION_DEVICES")[0].split(".")[0]
    real = next((name for name, each in DEVICES.items() if each == found), found)
    if real != spec.provider:
        raise FIXES[spec.provider].make_error(f"provider {spec.provider}", f"{real} after opening")
    return real


def _dimension(axis: int | str) -> int:
    """As OpenVINO has it: -1 is a free axis."""
    return axis if isinstance(axis, int) else -1


def _read_interface(path: Path) -> GraphSpec:
    """What `build` wrote there; raises OSError, EngineError."""

    def fail(problem: str) -> NoReturn:
        raise EngineError(f"the engine cannot be opened: {problem}", reason=Reason.CANNOT_OPEN, path=path)

    return parse_graph_spec(parse_section(path.read_bytes(), fail))
