"""The machine: how many cores a process may use, and the condition in which engines run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.cgroup import CpuQuota
from costroute_rt.engines.machine.condition import Condition, describe_assumption
from costroute_rt.engines.machine.device import CpuLimit

EIGHT = frozenset(range(8))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        (0.1, 1),
        (0.5, 1),
        (1.0, 1),
        (1.5, 2),  # rounded up: the second thread has half a core to run on, which would be lost without it
        (2.0, 2),
        (2.01, 3),
        (8.0, 4),
    ],
)
def test_a_container_s_share_of_the_processor_is_rounded_up(quota: float, cores: int) -> None:
    assert CpuLimit(logical=8, cpus=frozenset({0, 1, 4, 5}), quota=CpuQuota(quota, "cgroup v2")).usable_cores == cores


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (CpuLimit(logical=8, cpus=EIGHT), "8 cores"),
        (CpuLimit(logical=1, cpus=frozenset({0})), "1 core"),
        (CpuLimit(logical=8, cpus=EIGHT, quota=CpuQuota(1.5, "cgroup v2")), "2 of 8 cores (CPU quota 1.5, cgroup v2)"),
        (CpuLimit(logical=8, cpus=EIGHT, quota=CpuQuota(16.0, "cgroup v1")), "8 cores (CPU quota 16, cgroup v1)"),
        (CpuLimit(logical=8, cpus=frozenset({3})), "1 of 8 cores (affinity to 1)"),
        (
            CpuLimit(logical=8, cpus=frozenset({1, 2, 3}), quota=CpuQuota(0.5, "cgroup v1")),
            "1 of 8 cores (affinity to 3, CPU quota 0.5, cgroup v1)",
        ),
    ],
)
def test_a_limit_says_where_it_comes_from(limit: CpuLimit, text: str) -> None:
    assert str(limit) == text


def test_an_affinity_that_changes_while_the_process_runs_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for cpus in (EIGHT, {5}, {0, 1, 2}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cpus=cpus: set(cpus), raising=False)
        assert device.usable_cores(tmp_path) == len(cpus)
        assert device.default_threads(tmp_path) <= len(cpus)


@pytest.mark.parametrize(("cpus", "threads"), [({0, 1}, 2), ({0, 4}, 1), ({0, 1, 4}, 2), (EIGHT, 4), ({1, 9}, 2)])
def test_hyper_threads_of_one_core_get_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpus: set[int], threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(cpus), raising=False)
    for cpu in range(8):
        write(tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    assert device.physical_cores(tmp_path) == 4
    assert device.default_threads(tmp_path) == threads


def test_systems_without_an_affinity_count_their_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 6, raising=False)
    assert device.cpu_limit(tmp_path) == CpuLimit(logical=6, cpus=frozenset(range(6)))


def test_a_sandbox_that_forbids_to_ask_for_the_affinity_counts_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(process: int) -> set[int]:
        raise PermissionError("no")

    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 6, raising=False)
    assert device.usable_cores(tmp_path) == 6


@pytest.mark.parametrize(
    ("supplies", "mode"),
    [
        ({}, "powersave"),
        ({"AC": "1"}, "powersave, plugged in"),
        ({"AC": "0"}, "powersave, on battery"),
        ({"AC": "0", "usb-c:1": "1"}, "powersave, plugged in"),
        ({"usb-c:1": "0", "usb-c:2": "0"}, "powersave, on battery"),
        ({"AC": ""}, "powersave, on battery"),
    ],
)
def test_the_power_mode_says_whether_any_socket_has_power(tmp_path: Path, supplies: dict[str, str], mode: str) -> None:
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    for name, online in supplies.items():
        write(tmp_path / f"sys/class/power_supply/{name}/online", online)
    assert device.power_mode(tmp_path) == mode


NOW = Condition(threads=2, cpu_limit="8 cores", power_mode="plugged in")
OTHER = {
    "threads": Condition(threads=4, cpu_limit="8 cores", power_mode="plugged in"),
    "limit": Condition(threads=2, cpu_limit="2 of 8 cores", power_mode="plugged in"),
    "power": Condition(threads=2, cpu_limit="8 cores", power_mode="on battery"),
}


def test_threads_matter_more_than_limits_and_these_more_than_power() -> None:
    assert sorted(["threads", "limit", "power"], key=lambda name: NOW.distance(OTHER[name])) == ["power", "limit", "threads"]
    assert NOW.distance(Condition(threads=3)) < NOW.distance(OTHER["threads"])


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        ([], None),
        ([NOW], None),
        ([NOW, OTHER["power"]], "with power mode on battery; now power mode plugged in"),
        ([OTHER["limit"], OTHER["power"]], "with 2 of 8 cores; now 8 cores"),
        ([OTHER["threads"]], "with 4 threads; now 2 threads"),
        ([Condition(power_mode="plugged in")], "with unknown CPU limits; now 8 cores"),
        (
            [Condition(threads=1, cpu_limit="1 core")],
            "with 1 thread, 1 core, unknown power mode; now 2 threads, 8 cores, power mode plugged in",
        ),
    ],
)
def test_an_assumption_names_what_differs(measured: list[Condition], text: str | None) -> None:
    found = describe_assumption(NOW, measured)
    assert found == (None if text is None else f"costs were measured {text}: predictions are corrected as images are made")
