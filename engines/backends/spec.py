"""How an engine is to be built and run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from costroute_rt.engines.bundle.size import AxisRange
from costroute_rt.engines.machine import device
from costroute_rt.error import ConfigError

AUTO = "auto"
"""Provider or precision: the one the backend is best at."""
PRECISIONS = ("float32", "bfloat16", "float16")
"""What an engine may compute in; its inputs and outputs keep the types of its graph."""


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


def make_spec(
    provider: str = "cpu",
    threads: int | None = None,
    shapes: Mapping[str, int] | None = None,
    precision: str = "float32",
    target: str = "",
) -> BuildSpec:
    """A build specification with this machine's defaults filled in; raises ConfigError."""
    if threads is not None and threads < 1:
        raise ConfigError("threads", threads, "1 or more")
    if precision not in PRECISIONS:
        raise ConfigError("precision", precision, f"one of {', '.join(PRECISIONS)}")
    return BuildSpec(
        provider=provider,
        precision=precision,
        threads=threads or device.default_threads(),
        shapes=tuple(sorted((shapes or {}).items())),
        target=target,
    )
