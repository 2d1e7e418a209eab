"""What to install for a library that is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from costroute_rt.engines.machine.nvidia import find_driver
from costroute_rt.error import BackendError, Reason

_LIBRARY = re.compile(r"(lib\w[\w+-]*\.so[.\d]*|\w[\w-]*\.dll)")
_OWN_LIBRARY = re.compile("(lib)?onnxruntime_")
"""ONNX Runtime's own libraries, which a message names first: they are installed, and lack another."""
_PACKAGES = {
    "cudnn": "nvidia-cudnn",
    "cublas": "nvidia-cublas",
    "cudart": "nvidia-cuda-runtime",
    "cufft": "nvidia-cufft",
    "curand": "nvidia-curand",
    "nvrtc": "nvidia-cuda-nvrtc",
    "nvinfer": "tensorrt",
}
"""By a part of a missing library's name: the package that contains it, without the version of CUDA."""
_WITH_VERSION = ("nvidia-cudnn", "tensorrt")
"""Packages that have the CUDA version in their name for CUDA 13 too; the others have it up to CUDA 12 only."""


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do about something that is missing or does not work, in words and as data; fields as those of BackendError."""

    remedy: str
    install: tuple[str, ...] = ()
    uninstall: tuple[str, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)
    reason: Reason | None = None

    @classmethod
    def extra(cls, name: str) -> Fix:
        """Installs one of this package's extras."""
        return cls(f"install the {name} extra", (f"costroute-rt[{name}]",))

    @classmethod
    def of(cls, error: BackendError) -> Fix:
        """What to do about an error."""
        return cls(error.remedy, error.install, error.uninstall, error.instead, error.reason)

    def make_error(self, asked: str, found: str) -> BackendError:
        """The error that has this as its remedy."""
        return BackendError(
            asked, found, self.remedy, self.install, uninstall=self.uninstall, instead=self.instead, reason=self.reason
        )  # fmt: skip


def find_fix(problem: str) -> Fix | None:
    """What to install for the library that a message names as missing; None if it names none."""
    library = next((name for name in _LIBRARY.findall(problem) if not _OWN_LIBRARY.match(name)), None)
    if library is None:
        return None
    if re.match(r"(libcuda\.so|nvcuda)", library):
        return Fix("install the NVIDIA driver")
    package = next((package for part, package in _PACKAGES.items() if part in library), None)
    if package is None:
        return Fix(f"install the package that contains {library}")
    major = _cuda_major(library)
    requirement = f"{package}-cu{major}" if package in _WITH_VERSION or major <= 12 else package
    return Fix(f"install {requirement}", install=(requirement,))


def _cuda_major(library: str) -> int:
    """The major version of CUDA that a library is for: cuBLAS, the runtime and NVRTC have its number, others have their own."""
    found = re.search(r"lib(?:cublas\w*|cudart|nvrtc)\.so\.(\d+)|(?:cublas\w*|cudart|nvrtc)64_(\d\d)", library)
    if found is not None:
        return int(found[1] or found[2])
    with suppress(BackendError):
        driver = find_driver()
        if driver is not None and driver.cuda[0]:
            return driver.cuda[0]
    return 12
