"""The folder in which a bundle is made, beside its place: what is done is kept there, so that the same command continues it.

.NAME.export/key           what the work is for; other work is discarded
.NAME.export/parts/PART    what a finished part added to the manifest
.NAME.export/bundle/       the bundle so far; it has no manifest until the end, so that nothing loads it
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.engines.machine.durable import write_file
from costroute_rt.error import BundleError, OutputError
from costroute_rt.regular_file import read_regular

_KEY, _LOCK, _PARTS, _BUNDLE = "key", "lock", "parts", "bundle"
_MOST_PART_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """An open work folder, which no other process works in."""

    root: Path

    @property
    def bundle(self) -> Path:
        """The bundle that is being made."""
        return self.root / _BUNDLE

    def find_part(self, name: str) -> dict[str, Any] | None:
        """What a finished part added; None if it is not finished, or if one of its files is not as it was."""
        try:
            found = json.loads(read_regular(self.root / _PARTS / name, _MOST_PART_BYTES))
            whole = all((self.bundle / file).stat().st_size == size for file, size in found["files"].items())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return dict(found["added"]) if whole else None

    def finish_part(self, name: str, folder: str, added: Mapping[str, Any]) -> None:
        """Record what a part added to the manifest; folder: where its files are, in the bundle."""
        files = {path.relative_to(self.bundle).as_posix(): path.stat().st_size for path in (self.bundle / folder).iterdir()}
        write_file(self.root / _PARTS / name, json.dumps({"files": files, "added": added}).encode())

    def clear(self, folder: str) -> Path:
        """An empty folder of the bundle, for a part that begins."""
        path = self.bundle / folder
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def discard(self, folder: Path) -> None:
        """Remove the folder of a part that failed; the whole work if no part is finished."""
        shutil.rmtree(folder, ignore_errors=True)
        if not any((self.root / _PARTS).iterdir()):
            shutil.rmtree(self.bundle, ignore_errors=True)

    def move_to(self, target: Path) -> None:
        """Put the bundle in its place; what is there is deleted once the new one stands. Raises OSError."""
        old = self.root / "old"
        if os.path.lexists(target):
            os.replace(target, old)
        try:
            os.replace(self.bundle, target)
        except BaseException:
            if os.path.lexists(old):
                os.replace(old, target)
            raise


def work_folder(target: Path) -> Path:
    """Where the bundle `target` is made."""
    return target.with_name(f".{target.name}.export")


@contextmanager
def open_work(target: Path, key: str) -> Iterator[WorkFolder]:
    """The work folder of `target`, with what an earlier run with the same key has done; it is removed once the bundle was moved.

    Raises OutputError if it cannot be made, belongs to somebody else, or is in use.
    """
    from filelock import FileLock, Timeout

    root = work_folder(target)
    _make(root, target)
    lock = FileLock(root / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(target, "another process is making it") from None
    try:
        work = WorkFolder(root)
        if _read_key(root) != key:
            _empty(root)
            write_file(root / _KEY, key.encode())
        for name in (_PARTS, _BUNDLE):
            (root / name).mkdir(exist_ok=True)
        try:
            yield work
        except BundleError:  # the source cannot be exported: there is nothing to continue
            shutil.rmtree(work.bundle, ignore_errors=True)
            raise
    finally:
        lock.release()
        if not work_is_open(root):
            shutil.rmtree(root, ignore_errors=True)


def work_is_open(root: Path) -> bool:
    """Whether a work folder holds a bundle that is not finished."""
    return (root / _BUNDLE).is_dir()


def _make(root: Path, target: Path) -> None:
    """Make the folder, private to this user; raises OutputError for one of somebody else, who could have put anything there."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        root.mkdir(0o700)
    found = root.lstat()
    is_mine = not hasattr(os, "geteuid") or (found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    if not stat.S_ISDIR(found.st_mode) or not is_mine:
        problem = f"{root}, where it is made, is not this user's own folder; remove it"
        raise OutputError(target, problem)


def _read_key(root: Path) -> str | None:
    try:
        return read_regular(root / _KEY, 100).decode("ascii", errors="replace")
    except OSError:
        return None


def _empty(root: Path) -> None:
    for path in root.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
