"""Limits for the tests of hostile files: code without a check fails a test, instead of filling the disk or the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import built_home
from tests.security.limit import MOST_FILE_BYTES, MOST_MORE_BYTES, limited

__all__ = ["built_home", "limits"]

_STATUS = Path("/proc/self/status")


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """No file of more than 256 MiB, in child processes neither, and no more than 4 GiB of memory beyond what is in use."""
    data_kib = next((int(line.split()[1]) for line in _status_lines() if line.startswith("VmData")), None)
    with limited("RLIMIT_FSIZE", MOST_FILE_BYTES), limited("RLIMIT_DATA", None if data_kib is None else data_kib * 1024 + MOST_MORE_BYTES):
        yield


def _status_lines() -> list[str]:
    return _STATUS.read_text().splitlines() if _STATUS.exists() else []
