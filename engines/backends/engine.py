"""What an engine is, what a backend must do, and the key that says when an engine may be used again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.engines.bundle.section import Section
from costroute_rt.error import BackendError, ConfigError, EngineError, Reason

Value = Any
"""A tensor where the engine computes; only the engines of one backend and provider can read it."""
AxisRange = tuple[str, int, int, int]
"""A free axis by name, and the lengths it may have: least, usual, most."""
BuildProgress = Callable[[float], object]
"""Called now and then with how much of a build is done, 0 to 1; what it raises stops the build."""

DIGEST_LENGTH = 32
AUTO = "auto"
"""Provider or precision: the one the backend is best at."""
ANY_DRIVER = "any"
"""The driver in the key of an engine that is not bound to one device."""
PRECISIONS = ("float32", "bfloat16", "float16")
"""What an engine may compute in; its inputs and outputs keep the types of its graph."""
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field in which a stored engine is not the one asked for."""

    field: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.field}: wanted {_short(self.wanted)}, stored {_short(self.found)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """Everything that decides what an engine file holds and where it may run; any change makes another engine."""

    graph: str
    """family/component/graph, such as postcard/base/guided_step."""
    weights_sha256: str
    graph_sha256: str
    backend: str
    backend_version: str
    provider: str
    precision: str
    shapes: str
    """Axes built to one length, such as `batch=1 height=32`; empty: every free axis stays free."""
    options: str
    """Builder options, such as `threads=4 optimization=all`."""
    device: str
    """Processor name and the features code is chosen by."""
    driver: str
    os: str

    @property
    def digest(self) -> str:
        """The engine's name in the store."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]

    def to_json(self) -> dict[str, str]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_section(cls, section: Section) -> EngineKey:
        """Read from a manifest; fails as the section does."""
        return cls(**{field.name: str(section.get(field.name, str, "text")) for field in fields(cls)})

    @property
    def setup(self) -> dict[str, str]:
        """Backend, provider, precision and target that ask for such engines, as errors carry them."""
        target = self.device if self.driver == ANY_DRIVER else ""
        return {"backend": self.backend, "provider": self.provider, "precision": self.precision, "target": target}

    def differences(self, found: EngineKey) -> list[FieldDifference]:
        """The fields in which `found` is not this key."""
        pairs = [(field.name, getattr(self, field.name), getattr(found, field.name)) for field in fields(self)]
        return [FieldDifference(name, wanted, other) for name, wanted, other in pairs if wanted != other]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """How an engine is to be built and run."""

    provider: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    shapes: tuple[tuple[str, int], ...] = ()
    """Free axes to build to one length, by name; sorted."""
    ranges: tuple[AxisRange, ...] = ()
    """Lengths of the axes that stay free, for backends that have to know (`Backend.needs_ranges`)."""
    target: str = ""
    """Cards to build for, such as `ampere+`, where a backend can build for others than this machine's; empty: what suits this machine."""


class Engine(Protocol):
    """One component's graph, compiled and loaded; not to be run by two threads at once."""

    @property
    def key(self) -> EngineKey | None: ...
    @property
    def inputs(self) -> Mapping[str, TensorSpec]: ...
    @property
    def outputs(self) -> Mapping[str, TensorSpec]: ...
    @property
    def resident_bytes(self) -> int: ...
    @property
    def provider(self) -> str:
        """What really runs it."""

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """Compute all outputs, and return when that is done: callers time it; raises ConfigError for feeds that do not match `inputs`."""

    def to_device(self, array: npt.NDArray[Any]) -> Value: ...
    def to_host(self, value: Value) -> npt.NDArray[Any]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Engine: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Backend(Protocol):
    """Builds and opens engines with one library."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def default_provider(self) -> str: ...
    @property
    def default_precision(self) -> str: ...
    @property
    def needs_ranges(self) -> bool:
        """Whether engines are built for ranges of lengths, which are part of their key."""

    def options(self, spec: BuildSpec) -> str:
        """Builder options as they stand in the key."""

    def device(self, spec: BuildSpec) -> tuple[str, str]:
        """Device and driver as they stand in the key; raises ConfigError for an unknown provider, BackendError for one not installed."""

    def obstacle(self) -> BackendError | None:
        """What `open` would raise on this machine, where engines can be built but not run; None: they can be run."""

    def build(self, graph: Path, target: Path, spec: BuildSpec, progress: BuildProgress | None = None) -> None:
        """Write an engine into the directory `target`; raises EngineError, StoreFullError, BackendError.

        progress: called by backends that can tell, in the calling thread.
        """

    def open(self, folder: Path, spec: BuildSpec, key: EngineKey | None = None) -> Engine:
        """Load an engine written by `build`; raises EngineError, BackendError."""


def _short(value: str) -> str:
    """A value of a key as one reads it: of a hash the beginning."""
    return (value[:12] if _HASH.fullmatch(value) else value) or "none"


def get_backend(name: str) -> Backend:
    """The backend of that name; raises ConfigError for an unknown one and BackendError where its library is not installed."""
    if name == "onnxruntime":
        from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend

        return OnnxRuntimeBackend()
    if name == "openvino":
        from costroute_rt.engines.backends.openvino import OpenVinoBackend

        return OpenVinoBackend()
    if name in ("tensorrt", "tensorrt-rtx"):
        from costroute_rt.engines.backends.tensorrt.backend import TensorRtBackend

        return TensorRtBackend(name)
    raise ConfigError("backend", name, "one of onnxruntime, openvino, tensorrt, tensorrt-rtx")


def check_feeds(inputs: Mapping[str, TensorSpec], found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare feeds (name: dtype, shape) with what a graph takes; raises ConfigError at the first that does not fit."""
    if found.keys() != inputs.keys():
        raise ConfigError("feeds", sorted(found), f"the inputs {sorted(inputs)}")
    for name, (dtype, shape) in found.items():
        spec = inputs[name]
        fits = len(shape) == len(spec.shape) and all(
            isinstance(axis, str) or axis == length for axis, length in zip(spec.shape, shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise ConfigError(name, f"{dtype}{list(shape)}", f"{spec.dtype}[{', '.join(map(str, spec.shape))}]")


def make_engine_error(problem: str, reason: Reason, folder: Path, key: EngineKey | None) -> EngineError:
    """About an open engine; key: None for one that has no place in the store."""
    return EngineError(problem, reason=reason, path=folder, engine=key.graph if key else None, setup=key.setup if key else None)


def describe_array(array: object) -> tuple[str, tuple[int, ...]]:
    """dtype and shape of a host array; raises ConfigError for anything else."""
    if not isinstance(array, np.ndarray):
        raise ConfigError("feed", type(array).__name__, "a numpy array (numpy.asarray makes one of a number)")
    return _dtype_name(array.dtype), array.shape


@lru_cache(maxsize=64)
def _dtype_name(dtype: np.dtype[Any]) -> str:
    """NumPy puts the name together anew each time, which took 2 microseconds of each feed of each step."""
    return str(dtype.name)
