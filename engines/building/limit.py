"""Limits of time and memory for the work on one engine: far beyond any honest graph of its size, so that a hostile one ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from costroute_rt.engines.backends.engine import BuildProgress
from costroute_rt.engines.backends.polling import LimitError
from costroute_rt.engines.building.gate import Clock
from costroute_rt.engines.machine.memory import available_bytes, resident_bytes
from costroute_rt.error import Reason

_LEAST_S, _S_PER_MIB = 120.0, 1.2
_LEAST_BYTES, _BYTES_PER_BYTE = 16 << 30, 8
_AVAILABLE = 0.9
"""Share of the memory that was available before, beyond which a machine swaps or ends processes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the work on one engine may take."""

    time_s: float
    memory_bytes: int

    @classmethod
    def of(cls, graph_bytes: int) -> Limits:
        """For a graph and weights of that size in the bundle, on this machine."""
        free = available_bytes()
        most = _LEAST_BYTES + _BYTES_PER_BYTE * graph_bytes
        return cls(_LEAST_S + _S_PER_MIB * graph_bytes / (1 << 20), most if free is None else min(most, int(_AVAILABLE * free)))


def watch(
    poll: BuildProgress | None,
    limits: Limits,
    what: str,
    *,
    clock: Clock = time.monotonic,
    resident: Callable[[], int | None] = resident_bytes,
) -> BuildProgress:
    """`poll`, which also raises LimitError once the work takes more time or memory than it may, from now on.

    what: the work, as a noun, for the message. resident: memory of this process in bytes; None if unknown.
    """
    begin, before = clock(), resident() or 0

    def check(share: float | None) -> object:
        if clock() - begin > limits.time_s:
            raise LimitError(f"{what} took longer than {limits.time_s:.0f} s and was stopped", reason=Reason.TOO_LONG)
        if (resident() or 0) - before > limits.memory_bytes:
            gib = limits.memory_bytes / (1 << 30)
            raise LimitError(f"{what} took more than {gib:.1f} GiB of memory and was stopped", reason=Reason.NO_MEMORY)
        return None if poll is None else poll(share)

    return check
