"""What is installed to compute with, what of it works, and what mends the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from costroute_rt.engines.backends.engine import get_backend
from costroute_rt.engines.backends.onnxruntime import providers as onnxruntime_providers
from costroute_rt.engines.machine.nvidia import Driver, find_driver
from costroute_rt.error import BackendError


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; a problem always comes with what mends it."""

    name: str
    value: str
    problem: str | None = None
    remedy: str | None = None


BACKENDS = {"openvino": "openvino", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Beside ONNX Runtime: the module that each needs."""
CUDA_PACKAGES = ("cuda-bindings", "cuda-core", "pycuda")
_TENSORRT_PARTS = re.compile(r"tensorrt(-rtx)?(-cu\d+)?(-libs|-bindings)?")
_LIBRARY = re.compile(r"(lib\w[\w+-]*\.so[.\d]*|\w[\w-]*\.dll)")
_OWN_LIBRARY = re.compile("(lib)?onnxruntime_")
"""Of ONNX Runtime's own, which a message names first: it is there, and misses another."""
_PACKAGES = {
    "cudnn": "nvidia-cudnn",
    "cublas": "nvidia-cublas",
    "cudart": "nvidia-cuda-runtime",
    "cufft": "nvidia-cufft",
    "curand": "nvidia-curand",
    "nvrtc": "nvidia-cuda-nvrtc",
    "nvinfer": "tensorrt",
}
"""By a part of a missing library's name: the package that brings it, without the version of CUDA."""
_WITH_VERSION = ("nvidia-cudnn", "tensorrt")
"""Packages that name CUDA 13 too; of the others the last one named is CUDA 12."""


def check_onnxruntime() -> Iterator[Finding]:
    """One distribution, since all install the same module; then the providers that run a tiny graph, and those only listed."""
    installed = onnxruntime_providers.installed_distributions()
    if not installed:
        yield Finding("onnx runtime", "none", "ONNX Runtime is not installed", 'pip install "costroute-rt[cpu]"')
        return
    found = " and ".join(f"{name} {version_of(name)}" for name in installed)
    if len(installed) > 1:
        remedy = f"pip uninstall -y {' '.join(installed)} && pip install {installed[-1]}"
        yield Finding("onnx runtime", found, "they install the same module, and what runs is whichever came last", remedy)
        return
    yield Finding("onnx runtime", found)
    for check in onnxruntime_providers.check_providers():
        yield _provider(check.name, check.works, check.problem)


def check_backends() -> Iterator[Finding]:
    """The other backends: installed or not, opened where they are.

    One that builds engines and cannot run them is no problem on a machine that builds for others.
    """
    for name, module in BACKENDS.items():
        title = f"backend {name}"
        if find_spec(module) is None:
            yield Finding(title, f'not installed (pip install "costroute-rt[{name}]")')
            continue
        try:
            backend = get_backend(name)
        except BackendError as error:
            yield Finding(title, "does not work", error.found, error.remedy)
            continue
        obstacle = backend.obstacle()
        if obstacle is not None:
            yield Finding(title, f"{backend.version}, builds engines, cannot run them: {obstacle.found} ({obstacle.remedy})")
        elif name == "openvino":
            yield from _check_openvino(title, backend.version)
        else:
            yield Finding(title, f"{backend.version}, works")


def _check_openvino(title: str, version: str) -> Iterator[Finding]:
    """The devices that run a tiny graph, and those only listed."""
    from costroute_rt.engines.backends import openvino as openvino_backend

    problems = openvino_backend.check_devices()
    working = [name for name, problem in problems.items() if problem is None]
    yield Finding(title, f"{version}, works on {', '.join(working)}" if working else f"{version}, works on no device")
    for name, problem in problems.items():
        if problem is not None:
            yield Finding(f"openvino {name}", "listed, does not work", problem, openvino_backend.REMEDIES[name])


def check_nvidia() -> Iterator[Finding]:
    """Driver and GPUs, the packages that speak to them, and versions that do not go together."""
    driver, versions, failure = None, _installed(), None
    try:
        driver = find_driver()
    except BackendError as error:
        failure = error
    if failure is not None:
        yield Finding("nvidia driver", "does not work", failure.found, failure.remedy)
    elif driver is None:
        yield Finding("nvidia driver", "none")
    else:
        supports = f", CUDA up to {driver.cuda[0]}.{driver.cuda[1]}" if driver.cuda[0] else ""
        yield Finding("nvidia driver", f"{driver.version}{supports}")
        for index, gpu in enumerate(driver.gpus):
            yield Finding(f"gpu {index}", gpu)
    for name in CUDA_PACKAGES:
        yield Finding(name, versions.get(name, "not installed"))
    yield from _check_cuda_versions(driver, versions)
    yield from _check_tensorrt_versions(versions)


def _check_cuda_versions(driver: Driver | None, versions: Mapping[str, str]) -> Iterator[Finding]:
    """Packages made for a newer CUDA than the driver supports."""
    made_for = {"cuda-bindings": versions.get("cuda-bindings", "0").partition(".")[0]}
    made_for |= {name: match[1] for name in versions if (match := re.fullmatch(r"tensorrt(?:-rtx)?-cu(\d+)", name))}
    for name, major in made_for.items():
        if driver is None or not driver.cuda[0] or not major.isdecimal() or int(major) <= driver.cuda[0]:
            continue
        newest = driver.cuda[0]
        older = f"'{name}<{newest + 1}'" if name == "cuda-bindings" else f"{name[: -len(major)]}{newest}"
        problem = f"{name} {versions[name]} is for CUDA {major}, driver {driver.version} supports up to {newest}.{driver.cuda[1]}"
        yield Finding(f"{name} and driver", "do not go together", problem, f"install a newer NVIDIA driver, or pip install {older}")


def _check_tensorrt_versions(versions: Mapping[str, str]) -> Iterator[Finding]:
    """Parts of one TensorRT in several versions."""
    for name in ("tensorrt", "tensorrt-rtx"):
        parts = {
            each: version
            for each, version in versions.items()
            if _TENSORRT_PARTS.fullmatch(each) and each.startswith("tensorrt-rtx") == (name == "tensorrt-rtx")
        }
        if len(set(parts.values())) > 1:
            listed = ", ".join(f"{each} {version}" for each, version in sorted(parts.items()))
            remedy = f"pip uninstall -y {' '.join(sorted(parts))} && pip install {name}"
            yield Finding(name, "parts of several versions", f"its parts must have one version: {listed}", remedy)


def _provider(name: str, works: bool, problem: str | None) -> Finding:
    remedy = None if works else mend_library(problem or "") or f"install what {name} needs, or use another provider"
    return Finding(f"provider {name}", "works" if works else "listed, does not work", problem, remedy)


def mend_library(problem: str) -> str | None:
    """What brings the library that a message misses; None where it names none that we know."""
    library = next((name for name in _LIBRARY.findall(problem) if not _OWN_LIBRARY.match(name)), None)
    if library is None:
        return None
    if re.match(r"(libcuda\.so|nvcuda)", library):
        return "install the NVIDIA driver"
    package = next((package for part, package in _PACKAGES.items() if part in library), None)
    if package is None:
        return f"install what brings {library}"
    major = _cuda_major(library)
    return f"pip install {package}-cu{major}" if package in _WITH_VERSION or major <= 12 else f"pip install {package}"


def _cuda_major(library: str) -> int:
    """The major version of CUDA that a library is for: cuBLAS, the runtime and NVRTC count as CUDA does, others do not say."""
    found = re.search(r"lib(?:cublas\w*|cudart|nvrtc)\.so\.(\d+)|(?:cublas\w*|cudart|nvrtc)64_(\d\d)", library)
    if found is not None:
        return int(found[1] or found[2])
    with suppress(BackendError):
        driver = find_driver()
        if driver is not None and driver.cuda[0]:
            return driver.cuda[0]
    return 12


def version_of(distribution: str) -> str | None:
    """Installed version of a package; None where it is not there."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _installed() -> dict[str, str]:
    """Every installed package of CUDA or TensorRT, in its normal spelling."""
    names: Sequence[tuple[str, str]] = [(str(each.metadata["Name"] or ""), each.version) for each in metadata.distributions()]
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in names}
    return {name: version for name, version in normal.items() if name.startswith(("cuda-", "pycuda", "tensorrt", "nvidia-"))}
