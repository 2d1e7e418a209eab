"""The backends by name, and which of them work on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from costroute_rt.engines.backends.engine import Backend
from costroute_rt.engines.machine.diagnosis import Finding
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.installation import Installation, Library
from costroute_rt.error import BackendError, ConfigError

BACKENDS = {"openvino": "openvino", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""The module that each backend needs, besides that of ONNX Runtime."""
_PACKAGES = {"onnxruntime": "(onnxruntime|ort).*", "openvino": "openvino(-nightly)?"}
"""Patterns of the packages that bring the modules of these backends."""


def get_backend(name: str) -> Backend:
    """The backend of that name; raises ConfigError for an unknown one and BackendError where its library is not installed."""
    if name == "onnxruntime":
        from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend

        return OnnxRuntimeBackend()
    if name == "openvino":
        from costroute_rt.engines.backends.openvino.backend import OpenVinoBackend

        return OpenVinoBackend()
    if name in ("tensorrt", "tensorrt-rtx"):
        from costroute_rt.engines.backends.tensorrt.backend import TensorRtBackend

        return TensorRtBackend(name)
    raise ConfigError("backend", name, "one of auto, onnxruntime, openvino, tensorrt, tensorrt-rtx")


def find_version(name: str) -> str | None:
    """The version of the backend's library by the records of its packages, `unknown` where these lack it; None if it is not installed.

    Nothing is imported.
    """
    found = Installation(replace(Library.of(BACKENDS.get(name, name)), packages=_PACKAGES.get(name, "")))
    versions = found.versions() if found.packages else []
    return " ".join(versions) or ("unknown" if found.path is not None else None)


def check_backends() -> Iterator[Finding]:
    """The other backends: installed or not, opened where they are.

    One that builds engines and cannot run them is no problem on a machine that builds for others.
    """
    for name, module in BACKENDS.items():
        title = f"backend {name}"
        if not _is_installed(module):
            yield Finding(title, "not installed", fix=Fix.extra(name))
            continue
        try:
            backend = get_backend(name)
        except BackendError as error:
            yield Finding(title, "does not work", error.found, Fix.of(error))
            continue
        obstacle = backend.obstacle()
        if obstacle is not None:
            yield Finding(title, f"{backend.version}, builds engines, cannot run them: {obstacle.found}; {obstacle.remedy}")
        elif name == "openvino":
            from costroute_rt.engines.backends.openvino import backend as openvino

            yield from openvino.diagnose(title, backend.version)
        else:
            yield Finding(title, f"{backend.version}, works")


def _is_installed(module: str) -> bool:
    """Whether there is such a module, or a package that says so."""
    found = Installation(Library.of(module))
    return found.path is not None or bool(found.packages)
