"""The version of this package."""

from __future__ import annotations


def read_version() -> str:
    """As the installer recorded it; `0+unknown` when run from a source tree that was never installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("costroute-rt")
    except PackageNotFoundError:
        return "0+unknown"
