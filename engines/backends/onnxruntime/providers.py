"""ONNX Runtime's providers: which are installed, whether each really runs, and how to install one that is missing.

The only file that imports ONNX Runtime when it runs, inside a function, so that a bundle can be read where it is not installed; the backend
names its types.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from costroute_rt.engines.bundle.onnx_file import RELU
from costroute_rt.engines.machine.diagnosis import Finding
from costroute_rt.engines.machine.fix import Fix, find_fix
from costroute_rt.engines.machine.installation import Installation, Library, version_of
from costroute_rt.engines.machine.nvidia import NO_DRIVER, has_cuda_library
from costroute_rt.engines.machine.telemetry import ONNXRUNTIME, opt_out
from costroute_rt.error import BackendError, Reason

_log = logging.getLogger(__name__)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_FIXES = {
    "cpu": Fix("install the cpu extra", ("costroute-rt[cpu]",)),
    "cuda": Fix("install the cuda extra, and the NVIDIA driver, CUDA and cuDNN it needs", ("costroute-rt[cuda]",), reason=Reason.DRIVER),
    "tensorrt": Fix("install the cuda extra and TensorRT's libraries", ("costroute-rt[cuda]",), reason=Reason.DRIVER),
    "directml": Fix("install onnxruntime-directml, on Windows", ("onnxruntime-directml",)),
    "coreml": Fix("install the cpu extra, on macOS", ("costroute-rt[cpu]",)),
}
DEVICE_TYPES = {"cuda": "cuda", "tensorrt": "cuda"}
"""Providers whose tensors live elsewhere than in host memory, and where."""
LIBRARY = Library(
    "onnxruntime",
    _FIXES["cpu"],
    title="ONNX Runtime",
    names=("InferenceSession", "SessionOptions", "__version__"),
    packages="(onnxruntime|ort).*",
)
_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """Whether a provider that ONNX Runtime lists really runs a graph."""

    name: str
    works: bool
    problem: str | None


def check_providers() -> list[ProviderCheck]:
    """Run a graph of one node on each listed provider; a listed provider may lack its libraries."""
    ort, short = import_onnxruntime(), _short_names()
    return [check_provider(ort, short[full]) for full in ort.get_available_providers() if full in short]


def check_provider(ort: ModuleType, name: str) -> ProviderCheck:
    """The same for one provider; ort: the module. A failure is returned, not raised."""
    if name in DEVICE_TYPES:
        load_cuda_packages()
    full, options = PROVIDERS[name], ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(RELU, options, providers=[full], enable_fallback=0)
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:  # ONNX Runtime has a dozen unrelated exception classes
        return ProviderCheck(name, False, _library_problem(name) or shorten_error(error))
    found = session.get_providers()[0]
    return ProviderCheck(name, found == full, None if found == full else _library_problem(name) or f"{found} runs instead")


def diagnose() -> Iterator[Finding]:
    """One package, since all install the same module; then the providers that run a tiny graph, and those only listed."""
    packages = Installation(LIBRARY).packages
    found = " and ".join(f"{name} {version_of(name) or ''}".strip() for name in packages)
    try:
        module = import_onnxruntime()
    except BackendError as error:
        yield Finding("onnx runtime", found or "none", error.found, Fix.of(error))
        return
    yield Finding("onnx runtime", found or str(module.__version__))
    for check in check_providers():
        yield _describe(check)


def _describe(check: ProviderCheck) -> Finding:
    fix = None if check.works else find_fix(check.problem or "") or Fix(f"install what {check.name} needs, or use another provider")
    return Finding(f"provider {check.name}", "works" if check.works else "listed, does not work", check.problem, fix)


@cache
def prove_provider(name: str) -> None:
    """Run a graph of one node on it; raises BackendError where that fails. Only success is cached."""
    check = check_provider(import_onnxruntime(), name)
    if not check.works:
        raise _make_unusable_error(name, check.problem or "")


@cache
def load_cuda_packages() -> None:
    """Load the libraries of CUDA that pip installed (nvidia-cublas ...): the system's loader does not search their folders."""
    with redirect_stdout(sys.stderr):  # it prints what it does not find
        import_onnxruntime().preload_dlls()


def _make_unusable_error(name: str, problem: str) -> BackendError:
    """The error about a provider that ONNX Runtime has but cannot run; its remedy installs the library named in the problem."""
    return (find_fix(problem) or _FIXES[name]).make_error(f"provider {name}", problem)


def make_absent_error(name: str, listed: Iterable[str]) -> BackendError:
    """The error about a provider that this ONNX Runtime was built without: the library it lacks, and whether a driver is installed."""
    installed = Installation(LIBRARY).packages
    who = " and ".join(f"{each} {version_of(each)}" for each in installed) or "this onnxruntime"
    found = f"{_names(listed)}: {who} has no {_library_name(name) if name in DEVICE_TYPES else PROVIDERS[name]}"
    if name in DEVICE_TYPES and not has_cuda_library():
        found += f", and there is {NO_DRIVER}"
    fix = _FIXES[name]
    if installed and name in DEVICE_TYPES:  # both install the same module
        fix = replace(fix, remedy=f"uninstall {', '.join(installed)}, then {fix.remedy}", uninstall=tuple(installed))
    return fix.make_error(f"provider {name}", found)


def _library_name(name: str) -> str:
    """The file that is a provider for NVIDIA GPUs, beside ONNX Runtime's module."""
    stem = f"onnxruntime_providers_{name}"
    return f"{stem}.dll" if sys.platform == "win32" else f"lib{stem}.so"


def _library_problem(name: str) -> str | None:
    """Why a provider's library cannot be loaded, such as another library that is missing: ONNX Runtime only logs that.

    To be called after ONNX Runtime failed: loaded earlier, the library would not find symbols of ONNX Runtime.
    """
    found = importlib.util.find_spec("onnxruntime")
    path = Path(found.origin).parent / "capi" / _library_name(name) if found is not None and found.origin else None
    if path is not None and path.exists():
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            return f"a {path.name} that cannot be loaded: {error}"
    return None


def import_onnxruntime() -> ModuleType:
    """The module, without its usage reports; raises BackendError where it is missing, damaged, hidden or installed twice."""
    was_loaded = "onnxruntime" in sys.modules
    has_decided = opt_out(ONNXRUNTIME)
    module = LIBRARY.load(_import)
    if was_loaded and has_decided:
        _log.debug("ONNX Runtime was imported before this package: its usage reports can only be disabled in part")
        module.disable_telemetry_events()
    return module


def _import() -> ModuleType:
    import onnxruntime

    module: ModuleType = onnxruntime
    return module


def real_provider(found: list[str], wanted: str) -> str:
    """Our name for the provider that runs; raises BackendError if it is not the requested one."""
    real = _short_names().get(found[0], found[0])
    if real != wanted:
        raise _make_unusable_error(wanted, _library_problem(wanted) or f"{real} after opening")
    return real


def _short_names() -> dict[str, str]:
    """Our names by ONNX Runtime's."""
    return {full: name for name, full in PROVIDERS.items()}


def _names(providers: Iterable[str]) -> str:
    short = _short_names()
    return "only " + ", ".join(short[name] for name in providers if name in short)


def shorten_error(error: BaseException) -> str:
    """The last line of an ONNX Runtime error, without its source positions and codes."""
    lines = _PREFIX.split(str(error).strip())[-1].strip().splitlines()
    return lines[0][:_LONGEST_REASON] if lines else type(error).__name__
