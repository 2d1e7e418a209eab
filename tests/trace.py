"""What a process and its children write and whom they look up, native code included: a trace of system calls by strace (Linux)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STRACE = shutil.which("strace")
_WRITES = ["creat", "link", "linkat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "symlink", "symlinkat"]
_WRITES += ["chmod", "fchmodat", "rmdir", "truncate", "unlink", "unlinkat"]
_CALLS = [*_WRITES, "open", "openat", "openat2", "connect", "sendto", "sendmsg", "sendmmsg"]
_WRITE = re.compile(rf"\b({'|'.join(_WRITES)})\(")
_HARD_LINK = re.compile(r"\blink(at)?\(")
_OPENS_TO_WRITE = re.compile(r"open(at|at2)?\(.*\b(O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND)\b")
_NETWORK = re.compile(r"(connect|sendto|sendmsg|sendmmsg)\(.*\bAF_INET6?\b|open(at)?\(.*\"/etc/resolv\.conf\"")
_PATHS = re.compile(r"(?:(AT_FDCWD|\d+)<([^>]*)>, )?\"((?:[^\"\\]|\\.)*)\"")
_DEVICES = ("/dev/null", "/dev/tty", "/dev/urandom", "/proc/self/clear_refs")
"""The last one lets the process's peak of memory begin anew."""


@dataclass(frozen=True)
class Place:
    """The directories that a traced process may write to, and its empty home directory, which it may not."""

    root: Path

    @property
    def home(self) -> Path:
        return self._make("user")

    @property
    def store(self) -> Path:
        return self._make("store")

    @property
    def work(self) -> Path:
        return self._make("work")

    @property
    def scratch(self) -> Path:
        return self._make("scratch")

    def environment(self, **more: str) -> dict[str, str]:
        """As little as a process needs, so that no setting of this machine hides what users see."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "COSTROUTE_HOME": str(self.store),
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def allows(self, path: str) -> bool:
        return path in _DEVICES or any(Path(path).is_relative_to(each) for each in (self.store, self.work, self.scratch))

    def _make(self, name: str) -> Path:
        path = self.root.resolve() / name
        path.mkdir(exist_ok=True)
        return path


def can_trace() -> bool:
    """Whether strace is installed and may trace here, which containers can forbid."""
    return STRACE is not None and subprocess.run([STRACE, "-f", "--seccomp-bpf", "true"], capture_output=True).returncode == 0


def trace(command: Sequence[str], place: Place, **environment: str) -> tuple[list[str], list[str]]:
    """Runs a command; returns the calls that write outside `place`, and those that speak to the network or look up a host."""
    log = place.root / "trace"
    options = ["-f", "--seccomp-bpf", "-qq", "-y", "-s", "200", "-e", "trace=" + ",".join(f"?{call}" for call in _CALLS), "-o", str(log)]
    subprocess.run([STRACE or "strace", *options, *command], check=True, cwd=place.work, env=place.environment(**environment))
    lines = log.read_text(errors="replace").splitlines()
    return list(_find_writes(lines, place)), [line for line in lines if _NETWORK.search(line)]


def _find_writes(lines: Sequence[str], place: Place) -> Iterator[str]:
    for line in lines:
        if not (_WRITE.search(line) or _OPENS_TO_WRITE.search(line)) or line.endswith("(File exists)"):
            continue
        paths = [os.path.normpath(os.path.join(folder or place.work, path)) for _, folder, path in _PATHS.findall(line)]
        if _HARD_LINK.search(line):  # the file itself is only read
            paths = paths[1:]
        if not all(map(place.allows, paths)):
            yield line
