"""The version of this package."""

from __future__ import annotations

import os
from contextlib import suppress

_BEFORE, _AFTER = "costroute_rt-", ".dist-info"


def read_version() -> str:
    """As the installer recorded it; `0+unknown` when run from a source tree that was never installed."""
    with suppress(OSError):
        beside = os.listdir(os.path.dirname(os.path.dirname(__file__)))
        found = [name for name in beside if name.startswith(_BEFORE) and name.endswith(_AFTER)]
        if len(found) == 1:
            return found[0].removeprefix(_BEFORE).removesuffix(_AFTER)

    from importlib.metadata import PackageNotFoundError, version  # slow to load

    try:
        return version("costroute-rt")
    except PackageNotFoundError:
        return "0+unknown"
