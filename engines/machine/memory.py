"""The memory of this process and of the machine, and giving memory back to the system."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def give_back_memory() -> None:
    """Give freed memory back to the system, where the C library keeps it otherwise (glibc); takes a few milliseconds.

    A closed runtime of the postcard family would keep 100 MB without it, and 100 openings would add to that.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int | None:
    """Memory of this process; None where the system does not report it as Linux does."""
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def restart_peak(path: Path = Path("/proc/self/clear_refs")) -> bool:
    """Let `peak_bytes` begin anew with the present memory; returns whether the system can (Linux)."""
    try:
        file = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(file, b"5")
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def peak_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """The most memory that this process had since `restart_peak`; None where the system does not report it."""
    try:
        return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that programs can take without swapping; None where the system does not report it as Linux does."""
    try:
        return next(int(line.split()[1]) << 10 for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
