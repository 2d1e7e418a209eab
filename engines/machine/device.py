"""Facts about this machine: what engines are specific to, and what times depend on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from costroute_rt.engines.machine import nvidia
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
    "/sys/firmware/acpi/platform_profile",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "/sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference",
)


def device_facts() -> dict[str, str | int | list[str]]:
    """What `doctor` shows and costs are bound to: processor, features, cores, memory, power mode, operating system."""
    return {
        "cpu": cpu_name(),
        "features": cpu_features(),
        "physical_cores": physical_cores(),
        "usable_cores": usable_cores(),
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


def usable_cores() -> int:
    """Cores this process may use: affinity and, in a container, its share."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        count = min(count, max(1, -(-int(quota[0]) // int(quota[1]))))
    return count


@lru_cache(maxsize=1)
def physical_cores() -> int:
    """Cores without counting hyper-threads; all logical cores where that is unknown."""
    siblings = {_read(str(path)) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")}
    counted = len(siblings - {""}) or int(_sysctl("hw.physicalcpu") or 0)
    return counted or os.cpu_count() or 1


def default_threads() -> int:
    """Threads to compute with: a second thread on one core does not help."""
    return max(1, min(physical_cores(), usable_cores()))


def memory_bytes() -> int:
    """Physical memory; 0 where that is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return int(_sysctl("hw.memsize") or 0)


def power_mode() -> str:
    """The power settings as one text to compare; `unknown` where nothing is readable."""
    states = [_read(path) for path in _POWER_FILES]
    for supply in sorted(Path("/sys/class/power_supply").glob("*/online")):
        states.append("plugged in" if _read(str(supply)) == "1" else "on battery")
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
    for line in _read("/proc/cpuinfo").splitlines():
        name, found, value = line.partition(":")
        if found:
            entries.setdefault(name.strip(), value.strip())
    return entries


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


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
