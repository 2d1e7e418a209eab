"""What the system says about memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from costroute_rt.engines.machine.memory import available_bytes, peak_bytes, resident_bytes, restart_peak


def test_available_memory_is_read_in_kilobytes(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       16384 kB\nMemAvailable:    2048 kB\n")
    assert available_bytes(tmp_path / "meminfo") == 2 << 20


@pytest.mark.parametrize("text", ["", "MemTotal: 1 kB\n", "MemAvailable:\n", "MemAvailable: much\n"])
def test_memory_of_other_systems_is_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    assert available_bytes(tmp_path / "file") is None
    assert resident_bytes(tmp_path / "missing") is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_this_process_is_some_megabytes() -> None:
    found = resident_bytes()
    assert found is not None
    assert 1 << 20 < found < 1 << 40


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of the process as Linux reports it")
def test_the_peak_begins_anew() -> None:
    if not restart_peak():
        pytest.skip("this system does not let a process reset its peak")
    before = peak_bytes()
    block = bytearray(64 << 20)
    del block
    after = peak_bytes()
    assert before is not None
    assert after is not None
    assert after - before > 48 << 20
    assert restart_peak()
    again = peak_bytes()
    assert again is not None
    assert again < after - (32 << 20)


def test_systems_that_report_no_peak(tmp_path: Path) -> None:
    assert not restart_peak(tmp_path / "missing" / "clear_refs")
    assert peak_bytes(tmp_path / "missing") is None
