"""What is installed for NVIDIA GPUs, whether it works, and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.nvidia import Driver, find_driver
from costroute_rt.error import BackendError


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; a problem always comes with its fix."""

    name: str
    value: str
    problem: str | None = None
    fix: Fix | None = None
    """Always there where there is a problem."""


CUDA_PACKAGES = ("cuda-bindings", "cuda-core", "nvidia-ml-py", "pycuda")
_TENSORRT_PARTS = re.compile(r"tensorrt(-rtx)?(-cu\d+)?(-libs|-bindings)?")


def check_nvidia() -> Iterator[Finding]:
    """Driver and GPUs, the packages that speak to them, and versions that do not go together."""
    driver, versions, failure = None, _installed(), None
    try:
        driver = find_driver()
    except BackendError as error:
        failure = error
    if failure is not None:
        yield Finding("nvidia driver", "does not work", failure.found, Fix.of(failure))
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
        older = f"{name}<{newest + 1}" if name == "cuda-bindings" else f"{name[: -len(major)]}{newest}"
        problem = f"{name} {versions[name]} is for CUDA {major}, driver {driver.version} supports up to {newest}.{driver.cuda[1]}"
        fix = Fix(f"install a newer NVIDIA driver, or {older}", install=(older,))
        yield Finding(f"{name} and driver", "do not go together", problem, fix)


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
            fix = Fix(f"uninstall them, and install {name} again", install=(name,), uninstall=tuple(sorted(parts)))
            yield Finding(name, "parts of several versions", f"its parts must have one version: {listed}", fix)


def _installed() -> dict[str, str]:
    """Every installed package of CUDA or TensorRT, in its normal spelling."""
    from importlib import metadata  # slow to load

    found = {}
    for each in metadata.distributions():
        with suppress(Exception):  # a damaged record, for which there are several
            found[re.sub(r"[-_.]+", "-", str(each.metadata["Name"] or "")).lower()] = str(each.version)
    return {name: version for name, version in found.items() if name.startswith(("cuda-", "pycuda", "tensorrt", "nvidia-"))}
