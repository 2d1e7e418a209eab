"""F13: a container's limit of processor time was seen in one form only, and costs measured without it were believed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import Runtime
from costroute_rt.engines.machine import device

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")

Limit = Callable[[Mapping[str, str]], None]

MOUNTS = """\
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
HALF = {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Lets this process see eight cores and the files of a control group `/f13`, by their absolute paths."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    real = Path.read_text

    def show(files: Mapping[str, str]) -> None:
        shown = {"/proc/self/cgroup": "2:cpu,cpuacct:/f13\n0::/f13\n", "/proc/self/mountinfo": MOUNTS, **files}

        def read_text(path: Path, *arguments: Any, **how: Any) -> str:
            if str(path) in shown:
                return shown[str(path)]
            if str(path).startswith("/sys/fs/cgroup"):
                raise FileNotFoundError(path)
            return real(path, *arguments, **how)

        monkeypatch.setattr(Path, "read_text", read_text)

    return show


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({f"/sys/fs/cgroup/cpu,cpuacct/f13/{name}": text for name, text in HALF.items()}, 1),
        ({f"/sys/fs/cgroup/cpu,cpuacct/{name}": text for name, text in HALF.items()}, 1),
        ({"/sys/fs/cgroup/unified/f13/cpu.max": "250000 100000"}, 3),
        ({"/sys/fs/cgroup/unified/cpu.max": "200000 100000", "/sys/fs/cgroup/unified/f13/cpu.max": "max 100000"}, 2),
    ],
)
def test_f13_every_form_of_the_limit_is_seen(limit: Limit, files: dict[str, str], cores: int) -> None:
    limit(files)
    assert device.usable_cores() == cores
    assert device.default_threads() <= cores


def test_f13_costs_measured_without_the_limit_are_not_believed(tiny_bundle: Path, tmp_path: Path, limit: Limit) -> None:
    limit({})
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1, build=True, preload=False) as runtime:
        assert runtime.assumes is None
    limit({f"/sys/fs/cgroup/cpu,cpuacct/f13/{name}": text for name, text in HALF.items()})
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1, preload=False) as runtime:
        assert str(runtime.assumes).startswith("costs were measured with 8 cores; now 1 of 8 cores (CPU quota 0.5, cgroup v1): predictions")
