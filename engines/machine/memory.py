"""Giving memory back to the system."""

from __future__ import annotations

import sys


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
