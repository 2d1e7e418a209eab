"""What changes only the speed of engines: how they are run, and what this machine lets them use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from costroute_rt.engines.machine import device

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What measured times depend on, besides the engine file and the device."""

    threads: int | None = None
    """Threads that an engine computes with; None where the processor does not compute, or where it is unknown."""
    cpu_limit: str = UNKNOWN
    """What of the processors the process may use, such as `2 of 8 cores (CPU quota 1.5, cgroup v2)`."""
    power_mode: str = UNKNOWN

    @classmethod
    def now(cls, threads: int | None) -> Condition:
        """The condition of this process at this moment, for engines that compute with so many threads."""
        return cls(threads=threads, cpu_limit=str(device.cpu_limit()), power_mode=device.power_mode())

    def distance(self, other: Condition) -> tuple[int, bool, bool]:
        """How much another condition says about this one: the smaller, the more; the number of threads matters most, power least."""
        threads = 0 if self.threads is None or other.threads is None else abs(self.threads - other.threads)
        return threads, self.cpu_limit != other.cpu_limit, self.power_mode != other.power_mode

    def __str__(self) -> str:
        """`2 threads, 8 cores, power mode plugged in`"""
        return ", ".join(filter(None, self.parts()))

    def parts(self) -> tuple[str, str, str]:
        """Threads (empty where there are none), limit and power mode for a sentence."""
        threads = "" if self.threads is None else f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        limit = "unknown CPU limits" if self.cpu_limit == UNKNOWN else self.cpu_limit
        return threads, limit, "unknown power mode" if self.power_mode == UNKNOWN else f"power mode {self.power_mode}"

    def to_json(self) -> dict[str, str | int | None]:
        """Plain data, ready for `json.dumps`."""
        return {"threads": self.threads, "cpu_limit": self.cpu_limit, "power_mode": self.power_mode}


UNKNOWN_CONDITION = Condition()


def describe_assumption(now: Condition, measured: Iterable[Condition]) -> str | None:
    """What predictions assume if costs were measured under these conditions, by the one most unlike the present; None if they hold now."""
    other = max(measured, key=now.distance, default=now)
    pairs = zip(other.parts(), now.parts(), now.distance(other), strict=True)
    differ = [(then, current) for then, current, is_other in pairs if is_other]
    if not differ:
        return None
    then, current = (", ".join(part) for part in zip(*differ, strict=True))
    return f"costs were measured with {then}; now {current}: predictions are corrected as images are made"
