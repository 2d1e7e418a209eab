"""What an engine is, and what a backend must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.error import BackendError

Value = Any
"""A tensor where the engine computes; only the engines of one backend and provider can read it."""
BuildProgress = Callable[["float | None"], object]
"""Called several times a second with the finished share of a build, 0 to 1, None if unknown; what it raises stops the build."""


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
        """The provider that actually runs it."""

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """Compute all outputs, and return when that is done: callers time it; raises ConfigError for feeds that do not match `inputs`.

        An array that is fed again counts as unchanged: whoever changes its content feeds a copy.
        """

    def to_device(self, array: npt.NDArray[Any]) -> Value: ...
    def to_host(self, value: Value) -> npt.NDArray[Any]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Engine: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


@runtime_checkable
class Stoppable(Protocol):
    """An engine whose run another thread can end."""

    def stop(self) -> None:
        """End the run that goes on, between two of its operators; later runs of the engine fail."""


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
        """What `open` would raise on a machine that can build engines but not run them; None if it can run them."""

    def build(self, graph: Path, target: Path, spec: BuildSpec, progress: BuildProgress | None = None) -> None:
        """Write an engine into the directory `target`; raises EngineError, StoreFullError, BackendError.

        progress: called in the calling thread. A library that cannot be interrupted ends its call before what `progress` raised passes on.
        """

    def open(self, folder: Path, spec: BuildSpec, key: EngineKey | None = None) -> Engine:
        """Load an engine written by `build`; raises EngineError, BackendError."""
