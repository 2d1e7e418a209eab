"""Limits of control groups: every form in which Linux shows them, in a folder with files like those of `proc` and `sys`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from costroute_rt.engines.machine import cgroup, device
from costroute_rt.engines.machine.cgroup import CpuQuota

Machine = Callable[[Mapping[str, str]], Path]

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
V1_CPUSET = "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
GROUPS, MOUNTS = "proc/self/cgroup", "proc/self/mountinfo"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Writes these files into a folder that takes the place of `/`, on a machine of eight cores without an affinity."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def write(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def v1(quota: object, period: object = 100000, folder: str = "sys/fs/cgroup/cpu,cpuacct") -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


QUOTAS: dict[str, tuple[dict[str, str], float | None]] = {
    "no control groups": ({}, None),
    "version 2, a namespace's root": ({GROUPS: "0::/\n", MOUNTS: V2, "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, no list of mounts": ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, its own group": ({GROUPS: "0::/a\n", MOUNTS: V2, "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5),
    "version 2, a group above": (
        {
            GROUPS: "0::/kube.slice/pod/box\n",
            MOUNTS: V2,
            "sys/fs/cgroup/kube.slice/cpu.max": "600000 100000",
            "sys/fs/cgroup/kube.slice/pod/cpu.max": "100000 50000",
            "sys/fs/cgroup/kube.slice/pod/box/cpu.max": "max 100000",
        },
        2.0,
    ),
    "version 2, another group": ({GROUPS: "0::/a\n", MOUNTS: V2, "sys/fs/cgroup/b/cpu.max": "50000 100000\n"}, None),
    "version 2, the group is a container's root": (
        {GROUPS: "0::/docker/1f\n", MOUNTS: V2.replace(" / /sys", " /docker/1f /sys"), "sys/fs/cgroup/cpu.max": "50000 100000"},
        0.5,
    ),
    "version 2, a group below a container's root": (
        {GROUPS: "0::/docker/1f/job\n", MOUNTS: V2.replace(" / /sys", " /docker/1f /sys"), "sys/fs/cgroup/job/cpu.max": "50000 100000"},
        0.5,
    ),
    "version 2, a group outside the namespace": ({GROUPS: "0::/../b\n", MOUNTS: V2, "sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
    "version 2, a path of the host": ({GROUPS: "0::/docker/1f\n", MOUNTS: V2, "sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
    "version 2, mounted elsewhere": (
        {GROUPS: "0::/a\n", MOUNTS: V2.replace("/sys/fs/cgroup", "/mnt/my\\040groups"), "mnt/my groups/a/cpu.max": "50000 100000"},
        0.5,
    ),
    "version 2, the usual period": ({"sys/fs/cgroup/cpu.max": "50000"}, 0.5),
    "version 2, other blanks": ({"sys/fs/cgroup/cpu.max": " 50000\t 100000 \n"}, 0.5),
    "version 2, no quota": ({"sys/fs/cgroup/cpu.max": "max 100000"}, None),
    "version 1": ({GROUPS: "3:cpu,cpuacct:/\n", MOUNTS: V1_CPU, **v1(50000)}, 0.5),
    "version 1, no list of mounts": (v1(50000, folder="sys/fs/cgroup/cpu"), 0.5),
    "version 1, cpu alone": (
        {GROUPS: "3:cpu:/\n", MOUNTS: V1_CPU.replace("cpu,cpuacct", "cpu"), **v1(50000, folder="sys/fs/cgroup/cpu")},
        0.5,
    ),
    "version 1, a group above": (
        {
            GROUPS: "4:cpuacct,cpu:/docker/1f\n1:name=systemd:/other\n",
            MOUNTS: V1_CPU,
            **v1(300000, folder="sys/fs/cgroup/cpu,cpuacct/docker"),
            **v1(-1, folder="sys/fs/cgroup/cpu,cpuacct/docker/1f"),
        },
        3.0,
    ),
    "version 1, the group is a container's root": (
        {GROUPS: "4:cpu,cpuacct:/docker/1f\n", MOUNTS: V1_CPU.replace(" / /sys", " /docker/1f /sys"), **v1(50000)},
        0.5,
    ),
    "version 1, no quota": ({GROUPS: "3:cpu,cpuacct:/\n", MOUNTS: V1_CPU, **v1(-1)}, None),
    "version 1, no period": ({GROUPS: "3:cpu,cpuacct:/\n", MOUNTS: V1_CPU, **v1(50000, 0)}, None),
    "both versions, the quota in the first": (
        {
            GROUPS: "3:cpu,cpuacct:/a\n0::/b\n",
            MOUNTS: V1_CPU + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            **v1(50000, folder="sys/fs/cgroup/cpu,cpuacct/a"),
            "sys/fs/cgroup/unified/b/cgroup.procs": "1",
        },
        0.5,
    ),
    "both versions, the smaller quota": (
        {
            GROUPS: "3:cpu,cpuacct:/\n0::/\n",
            MOUNTS: V1_CPU + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            **v1(250000),
            "sys/fs/cgroup/unified/cpu.max": "125000 100000",
        },
        1.25,
    ),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_the_smallest_quota_of_all_groups_counts(machine: Machine, name: str) -> None:
    files, cores = QUOTAS[name]
    found = cgroup.cpu_quota(machine(files))
    assert (None if found is None else found.cores) == cores


def test_a_quota_names_the_version_it_comes_from(machine: Machine) -> None:
    root = machine({GROUPS: "3:cpu,cpuacct:/\n0::/\n", MOUNTS: V1_CPU, **v1(250000), "sys/fs/cgroup/cpu.max": "300000 100000"})
    assert cgroup.cpu_quota(root) == CpuQuota(2.5, "cgroup v1")
    (root / "sys/fs/cgroup/cpu.max").write_text("50000 100000")
    assert cgroup.cpu_quota(root) == CpuQuota(0.5, "cgroup v2")


def test_a_process_that_moves_to_another_group_has_its_quota(machine: Machine) -> None:
    root = machine({GROUPS: "0::/a\n", MOUNTS: V2, "sys/fs/cgroup/a/cpu.max": "max", "sys/fs/cgroup/b/cpu.max": "50000 100000"})
    assert cgroup.cpu_quota(root) is None
    (root / GROUPS).write_text("0::/b\n")
    assert cgroup.cpu_quota(root) == CpuQuota(0.5, "cgroup v2")


@pytest.mark.parametrize(
    "text",
    ["", "\n", "max", "-1", "0 100000", "100000 0", "many of them", "1e5 100000", "² ³", "9" * 400, "\0", "a:b", "0::/\0", "3:cpu:/\0"],
)
@pytest.mark.parametrize("place", ["cpu.max", "cpuset.cpus", "cpuset.cpus.effective", "memory.max", GROUPS, MOUNTS, "quota", "period"])
def test_files_that_cannot_be_understood_are_no_limit(machine: Machine, place: str, text: str) -> None:
    files = v1(50000) if place in ("quota", "period") else {}
    name = f"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_{place}_us" if files else place if "/" in place else f"sys/fs/cgroup/{place}"
    mounts = {GROUPS: "3:cpu,cpuacct:/\n0::/\n", MOUNTS: V1_CPU + V2}
    root = machine({**mounts, **files, name: text})
    assert device.usable_cores(root) == 8
    assert device.memory_bytes(root) > 0


def test_files_that_cannot_be_read_are_no_limit(machine: Machine) -> None:
    root = machine({GROUPS: "0::/\n"})
    for name in ("proc/self/mountinfo", "sys/fs/cgroup/cpu.max", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/cpuset.cpus"):
        (root / name).mkdir(parents=True)
    (root / GROUPS).write_bytes(b"0::/\xff\xfe\n")
    assert (device.usable_cores(root), cgroup.memory_limit_bytes(root)) == (8, None)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3", {0, 1, 2, 3}),
        ("2", {2}),
        ("0-1,4,6-7", {0, 1, 4, 6, 7}),
        ("", set()),
        ("3-1", set()),
        ("0-999999999999", set()),
        ("a-b", set()),
    ],
)
def test_lists_of_processors_are_read(text: str, cpus: set[int]) -> None:
    assert cgroup.parse_cpus(text) == cpus


@pytest.mark.parametrize(
    "files",
    [
        {GROUPS: "0::/a\n", MOUNTS: V2, "sys/fs/cgroup/a/cpuset.cpus.effective": "0-2", "sys/fs/cgroup/cpuset.cpus.effective": "0-7"},
        {GROUPS: "0::/a/b\n", MOUNTS: V2, "sys/fs/cgroup/a/cpuset.cpus.effective": "0-2"},
        {GROUPS: "0::/a\n", MOUNTS: V2, "sys/fs/cgroup/a/cpuset.cpus": "0-2", "sys/fs/cgroup/a/cpuset.cpus.effective": "\n"},
        {GROUPS: "2:cpuset:/a\n", MOUNTS: V1_CPUSET, "sys/fs/cgroup/cpuset/a/cpuset.cpus": "0-2"},
        {GROUPS: "2:cpuset:/a\n", MOUNTS: V1_CPUSET, "sys/fs/cgroup/cpuset/a/cpuset.effective_cpus": "0-2"},
        {GROUPS: "2:cpuset:/a\n0::/\n", MOUNTS: V1_CPUSET + V2, "sys/fs/cgroup/cpuset/a/cpuset.cpus": "0-2"},
    ],
)
def test_the_set_of_processors_of_the_own_group_counts(machine: Machine, files: dict[str, str]) -> None:
    assert device.usable_cores(machine(files)) == 3


@pytest.mark.parametrize(
    "files",
    [
        {GROUPS: "0::/a\n", MOUNTS: V2, "sys/fs/cgroup/memory.max": "1048576", "sys/fs/cgroup/a/memory.max": "max"},
        {GROUPS: "4:memory:/a\n", MOUNTS: V1_MEMORY, "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1048576"},
        {
            GROUPS: "4:memory:/a\n",
            MOUNTS: V1_MEMORY,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",  # how version 1 writes that there is no limit
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1048576",
        },
    ],
)
def test_a_container_s_memory_is_what_it_may_use(machine: Machine, files: dict[str, str]) -> None:
    assert device.memory_bytes(machine(files)) == 1 << 20


def test_no_limit_of_memory_leaves_that_of_the_machine(machine: Machine) -> None:
    root = machine({GROUPS: "4:memory:/\n", MOUNTS: V1_MEMORY, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})
    assert device.memory_bytes(root) == device.memory_bytes(root / "nothing") < 1 << 50
