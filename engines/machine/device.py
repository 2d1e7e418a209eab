"""Facts about this machine: what engines are specific to, and what times depend on."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from costroute_rt.engines.machine import cgroup, nvidia
from costroute_rt.engines.machine.cgroup import ROOT, CpuQuota
from costroute_rt.error import BackendError

_RELEVANT = [
    "sse4_1",
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
]
"""Instruction sets that kernels are chosen by; other flags do not matter to an engine."""
_WINDOWS_FEATURES = {37: "sse4_1", 38: "sse4_2", 39: "avx", 40: "avx2", 41: "avx512f", 43: "asimddp"}
_POWER_FILES = (
    "sys/firmware/acpi/platform_profile",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuLimit:
    """How much of the processors this process may use."""

    logical: int
    """Logical cores of the machine."""
    cpus: frozenset[int]
    """Numbers of those that this process may run on, by its affinity and its control groups."""
    quota: CpuQuota | None = None
    """Share of their time that its control groups allow; None means no limit."""

    @property
    def usable_cores(self) -> int:
        """Cores to compute with at the same time.

        A quota is rounded up, as Java, Go and .NET do: with 1.5 cores, two threads get half as much done again as one could. Below one
        core a second thread gains nothing: both would use up the quota sooner, and then stand still together.
        """
        allowed = len(self.cpus)
        return allowed if self.quota is None else min(allowed, max(1, math.ceil(self.quota.cores)))

    def __str__(self) -> str:
        """`2 of 8 cores (CPU quota 1.5, cgroup v2)`"""
        limits = [f"affinity to {len(self.cpus)}"] if len(self.cpus) < self.logical else []
        limits += [] if self.quota is None else [f"CPU quota {self.quota.cores:g}", self.quota.source]
        cores = f"{self.usable_cores} of {self.logical}" if self.usable_cores < self.logical else f"{self.logical}"
        found = f"{cores} core{'' if self.logical == 1 else 's'}"
        return f"{found} ({', '.join(limits)})" if limits else found

    def to_json(self) -> dict[str, int | float | str | None]:
        """Plain data, ready for `json.dumps`."""
        return {
            "logical_cores": self.logical,
            "allowed_cores": len(self.cpus),
            "usable_cores": self.usable_cores,
            "cpu_quota": None if self.quota is None else self.quota.cores,
            "cpu_quota_source": None if self.quota is None else self.quota.source,
        }


def device_facts() -> dict[str, str | int | list[str]]:
    """What `doctor` shows: processor, features, cores and limits, memory, power mode, operating system."""
    limit = cpu_limit()
    return {
        "cpu": cpu_name(),
        "features": cpu_features(),
        "physical_cores": physical_cores(),
        "usable_cores": limit.usable_cores,
        "cpu_limit": str(limit),
        "memory_bytes": memory_bytes(),
        "power_mode": power_mode(),
        "os": os_name(),
    }


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor as it names itself."""
    found = _cpuinfo().get("model name") or _cpuinfo().get("Model") or _sysctl("machdep.cpu.brand_string")
    return " ".join((found or platform.processor() or platform.machine() or "unknown").split())


@lru_cache(maxsize=1)
def _features() -> tuple[str, ...]:
    info = _cpuinfo()
    words = set((info.get("flags") or info.get("Features") or "").split())
    if platform.system() == "Darwin":
        words = {name.split(".")[-1].replace("FEAT_", "").lower() for name in _sysctl("hw.optional.arm", values=False).splitlines()}
        words |= set(_sysctl("machdep.cpu.features").lower().split()) | set(_sysctl("machdep.cpu.leaf7_features").lower().split())
    elif platform.system() == "Windows":
        words = set(_windows_features())
    return tuple(name for name in _RELEVANT if name in words)


def cpu_features() -> list[str]:
    """Instruction sets that decide which kernels run."""
    return list(_features())


def cpu_limit(root: Path = ROOT) -> CpuLimit:
    """The limits as they are now: affinity and quotas may change while a process runs."""
    cpus = _allowed_cpus(root)
    return CpuLimit(logical=max(os.cpu_count() or 1, len(cpus)), cpus=cpus, quota=cgroup.cpu_quota(root))


def usable_cores(root: Path = ROOT) -> int:
    """Cores this process may use: affinity and, in a container, its share."""
    return cpu_limit(root).usable_cores


def _allowed_cpus(root: Path) -> frozenset[int]:
    """Numbers of the logical cores that this process may run on; where the system does not report them, as many as it counts."""
    try:
        affinity = frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # other systems have no such function, and some sandboxes forbid it
        affinity = frozenset(range(getattr(os, "process_cpu_count", os.cpu_count)() or 1))
    return affinity & cgroup.allowed_cpus(root) or affinity


def physical_cores(root: Path = ROOT) -> int:
    """Cores of the machine without counting hyper-threads; all logical cores where that is unknown."""
    counted = len(set(_siblings(root).values())) or int(_sysctl("hw.physicalcpu") or 0)
    return counted or os.cpu_count() or 1


@lru_cache(maxsize=8)
def _siblings(root: Path) -> dict[int, str]:
    """By logical core: the logical cores that share its physical core, as the system lists them."""
    found = {}
    for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list"):
        number, siblings = path.parts[-3].removeprefix("cpu"), cgroup.read_text(path)
        if number.isdecimal() and siblings:
            found[int(number)] = siblings
    return found


def default_threads(root: Path = ROOT) -> int:
    """Threads to compute with: one for each physical core that this process may use, as a second thread on one core does not help."""
    limit, siblings = cpu_limit(root), _siblings(root)
    own = {siblings.get(cpu, str(cpu)) for cpu in limit.cpus} if siblings else range(physical_cores(root))
    return max(1, min(len(own), limit.usable_cores))


def memory_bytes(root: Path = ROOT) -> int:
    """Memory that this process may use: all of the machine's, or what its container may; 0 where that is unknown."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        physical = int(_sysctl("hw.memsize") or 0)
    limit = cgroup.memory_limit_bytes(root)
    return physical if limit is None else min(physical or limit, limit)


def power_mode(root: Path = ROOT) -> str:
    """The power settings as one text to compare; `unknown` where nothing is readable."""
    states = [cgroup.read_text(root / path) for path in _POWER_FILES]
    supplies = [cgroup.read_text(path) for path in (root / "sys/class/power_supply").glob("*/online")]
    if supplies:  # a laptop has one for each socket, and one of them is enough
        states.append("plugged in" if "1" in supplies else "on battery")
    if platform.system() == "Windows":
        states.append(_windows_power())
    return ", ".join(dict.fromkeys(state for state in states if state)) or "unknown"


def os_name() -> str:
    """System and machine; on Windows and macOS with the version, on which drivers and frameworks depend."""
    version = {"Windows": platform.version(), "Darwin": platform.mac_ver()[0]}.get(platform.system(), "")
    return " ".join(filter(None, (platform.system(), version, platform.machine())))


def gpu() -> tuple[str, str]:
    """Name with compute capability, and driver, of the NVIDIA GPU that engines run on; both `none` without such a GPU."""
    try:
        return named_gpu()
    except BackendError:
        return "none", "none"


def named_gpu() -> tuple[str, str]:
    """The same; raises BackendError without such a GPU."""
    found = _gpu()
    return f"{found.name} {found.capability}", found.driver


def gpu_memory_bytes() -> int:
    """Memory of that GPU; 0 where that is unknown."""
    try:
        return _gpu().memory_bytes
    except BackendError:
        return 0


@lru_cache(maxsize=1)
def _gpu() -> nvidia.Gpu:
    """Only a GPU is remembered: an error is not cached, so the next call asks again."""
    return nvidia.find_gpu()


@lru_cache(maxsize=1)
def _cpuinfo() -> dict[str, str]:
    """The first processor's entries; empty outside Linux."""
    entries: dict[str, str] = {}
    for line in cgroup.read_text(ROOT / "proc/cpuinfo").splitlines():
        name, found, value = line.partition(":")
        if found:
            entries.setdefault(name.strip(), value.strip())
    return entries


def _sysctl(name: str, values: bool = True) -> str:
    if platform.system() != "Darwin":
        return ""
    command = ["/usr/sbin/sysctl", *(["-n"] if values else ["-N"]), name]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _windows_features() -> Iterator[str]:
    import ctypes

    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  (missing on other systems)
    return (name for number, name in _WINDOWS_FEATURES.items() if kernel.IsProcessorFeaturePresent(number))


def _windows_power() -> str:
    import ctypes

    status = ctypes.create_string_buffer(12)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  (missing on other systems)
    if not kernel.GetSystemPowerStatus(status):
        return ""
    return {0: "on battery", 1: "plugged in"}.get(status.raw[0], "")
