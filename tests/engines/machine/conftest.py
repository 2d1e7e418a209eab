"""Nothing remembered of another test's folder, which may have had the same name."""

from __future__ import annotations

import pytest

from costroute_rt.engines.machine import cgroup, device


@pytest.fixture(autouse=True)
def forget_folders() -> None:
    """Empties what is remembered by the folder that takes the place of `/`."""
    cgroup._find_folders.cache_clear()
    device._siblings.cache_clear()
