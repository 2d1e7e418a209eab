"""How an engine is to be built and run."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.engines.bundle.size import AxisRange
from costroute_rt.engines.machine import device
from costroute_rt.error import ConfigError

AUTO = "auto"
"""Provider or precision: the one the backend is best at."""
PRECISIONS = ("float32", "bfloat16", "float16")
"""What an engine may compute in; its inputs and outputs keep the types of its graph."""
_ALWAYS_ALLOWED, _PER_CORE = 64, 4
"""Most threads on any machine, so that a script runs on a smaller one too, and for each logical core of a larger one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """How an engine is to be built and run."""

    provider: str = "cpu"
    precision: str = "float32"
    threads: int | None = 1
    """Threads that it computes with, None for this machine's default; no part of its key, as any engine runs with any number of them."""
    shapes: tuple[tuple[str, int], ...] = ()
    """Free axes to build to one length, by name; sorted."""
    ranges: tuple[AxisRange, ...] = ()
    """Lengths of the axes that stay free, for backends that have to know (`Backend.needs_ranges`)."""
    target: str = ""
    """Cards to build for, such as `ampere+`, where a backend can build for others than this machine's; empty: what suits this machine."""

    def thread_count(self) -> int:
        """Threads to compute with now, which may change while a process runs."""
        return self.threads or device.default_threads()


def make_spec(
    provider: str = "cpu",
    threads: int | None = None,
    shapes: Mapping[str, int] | None = None,
    precision: str = "float32",
    target: str = "",
) -> BuildSpec:
    """A build specification whose values were checked; raises ConfigError."""
    threads = check_threads(threads)
    if precision not in PRECISIONS:
        raise ConfigError("precision", precision, f"one of {', '.join(PRECISIONS)}")
    return BuildSpec(
        provider=provider,
        precision=precision,
        threads=threads,
        shapes=tuple(sorted((shapes or {}).items())),
        target=target,
    )


def check_threads(threads: Any) -> int | None:
    """The number of threads, None for this machine's default; raises ConfigError for what no engine could be opened with."""
    most = max(_ALWAYS_ALLOWED, _PER_CORE * (os.cpu_count() or 1))
    try:
        count = 0 if isinstance(threads, bool | np.bool_) else None if threads is None else operator.index(threads)
    except TypeError:
        count = 0
    if count is not None and not 1 <= count <= most:
        raise ConfigError("threads", threads, f"a whole number from 1 to {most}")
    return count
