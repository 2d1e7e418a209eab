"""Limits of Linux control groups, which containers and service managers set, in every form.

A process belongs to one group in each hierarchy: version 2 has a single hierarchy, version 1 one for each controller, and a machine may use
both. A limit of any group above the process's own applies too, as far up as it is visible: inside a container, up to the container's root.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

ROOT = Path("/")
"""Where `proc` and `sys` are; tests use a folder with files like theirs."""
_USUAL_MOUNTS = {"": "/sys/fs/cgroup", "cpu": "/sys/fs/cgroup/cpu", "cpuset": "/sys/fs/cgroup/cpuset", "memory": "/sys/fs/cgroup/memory"}
"""Folder of each version 1 controller, and of version 2 (no name), where the list of mounts cannot be read."""
_MOST_CPUS = 1 << 16
_USUAL_PERIOD = "100000"
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """Share of the processors' time that a group of processes may use."""

    cores: float
    """1.5: as much time as one and a half cores have."""
    source: str
    """`cgroup v1` or `cgroup v2`."""


def cpu_quota(root: Path = ROOT) -> CpuQuota | None:
    """The smallest quota of this process's groups; None if there is none."""
    quotas = [CpuQuota(cores, "cgroup v2") for folder in _folders(root, "") if (cores := _quota_v2(folder)) is not None]
    quotas += [CpuQuota(cores, "cgroup v1") for folder in _folders(root, "cpu") if (cores := _quota_v1(folder)) is not None]
    return min(quotas, key=lambda quota: quota.cores, default=None)


def allowed_cpus(root: Path = ROOT) -> frozenset[int]:
    """Numbers of the processors that this process's groups may use; empty if that is unknown."""
    for folder in (*_folders(root, ""), *_folders(root, "cpuset")):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            if cpus := parse_cpus(read_text(folder / name)):
                return cpus
    return frozenset()


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """The smallest memory limit of this process's groups; None if there is none."""
    limits = [_number(read_text(folder / "memory.max")) for folder in _folders(root, "")]
    limits += [_number(read_text(folder / "memory.limit_in_bytes")) for folder in _folders(root, "memory")]
    return min((limit for limit in limits if limit), default=None)


def read_text(path: Path) -> str:
    """The content of a small file without the blanks around it; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):  # ValueError: a path with a null character, from a list that is not what it should be
        return ""


def parse_cpus(text: str) -> frozenset[int]:
    """The numbers in a list such as `0-3,8`; empty for one that is not understood."""
    cpus = set[int]()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin, end = _number(first), _number(last if dash else first)
        if begin is None or end is None or not begin <= end < _MOST_CPUS:
            return frozenset()
        cpus.update(range(begin, end + 1))
    return frozenset(cpus)


def _quota_v2(folder: Path) -> float | None:
    """`150000 100000`: microseconds in each period of so many; `max` is no quota."""
    words = read_text(folder / "cpu.max").split()
    return _share(words[0], words[1] if len(words) > 1 else _USUAL_PERIOD) if words else None


def _quota_v1(folder: Path) -> float | None:
    """-1 is no quota."""
    return _share(read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us"))


def _share(quota: str, period: str) -> float | None:
    allowed, length = _number(quota), _number(period)
    return allowed / length if allowed and length else None


def _folders(root: Path, controller: str) -> tuple[Path, ...]:
    """Folders of this process's group and of all groups above it, for a version 1 controller; for version 2 without a name."""
    return _find_folders(root, controller, _group(root, controller))


@lru_cache(maxsize=64)
def _find_folders(root: Path, controller: str, path: str) -> tuple[Path, ...]:
    """Those of the group `path`. They are remembered: a process may move to another group, but mounts stay."""
    folders = dict[Path, None]()
    for mounted, point in _mounts(root, controller):
        inside = PurePosixPath(path).relative_to(mounted) if PurePosixPath(path).is_relative_to(mounted) else PurePosixPath()
        if ".." in inside.parts:  # the group is outside what this namespace can see
            inside = PurePosixPath()
        top = root / point.lstrip("/")
        folders |= dict.fromkeys([top / inside, *(top / above for above in inside.parents)])
    return tuple(folders)


def _group(root: Path, controller: str) -> str:
    """Path of this process's group in the hierarchy of that controller."""
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, found, path = rest.partition(":")
        if found and controller in controllers.split(","):
            return path
    return "/"


def _mounts(root: Path, controller: str) -> Iterator[tuple[str, str]]:
    """For each place where that hierarchy is mounted: the group that is its root, and the folder."""
    is_found = False
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        fields, _, about = line.partition(" - ")
        place, kind = fields.split(), about.split()
        if len(place) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup" and controller in kind[2].split(",") if controller else kind[0] == "cgroup2":
            is_found = True
            yield _unescape(place[3]), _unescape(place[4])
    if not is_found:
        yield "/", _USUAL_MOUNTS[controller]


def _unescape(path: str) -> str:
    for escape, character in _ESCAPES.items():
        path = path.replace(escape, character)
    return path


def _number(text: str) -> int | None:
    """A whole number of 0 or more; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
