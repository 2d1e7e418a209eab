"""The machine: how many cores a process may use."""

from __future__ import annotations

import os

import pytest

from costroute_rt.engines.machine import device


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 4),
        ("", 4),  # no control group
        ("150000 100000", 2),  # a second thread has half a core to run on
        ("50000 100000", 1),
        ("200000 100000", 2),
        ("800000 100000", 4),
    ],
)
def test_a_container_s_share_of_the_processor_is_rounded_up(monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(device, "_read", lambda path: quota)
    assert device.usable_cores() == cores
