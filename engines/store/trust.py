"""Hashes of files that were hashed before, so that a start hashes nothing twice.

A file is trusted while its size, times and inode are those it had when it was hashed, also under another name (a hard link); anything else
is hashed again. The record belongs to the store, also for files elsewhere: a bundle often lies where this user cannot write. A record that
is damaged, too large or that others could have written counts as none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from costroute_rt.engines.bundle.digest import sha256_files
from costroute_rt.engines.machine.durable import make_folders, write_file
from costroute_rt.engines.store.access import find_exposure, read_file
from costroute_rt.error import EngineError

TRUST = "trust.json"
_VERSION = 1
_MOST_FILES = 4096
_MOST_BYTES = 4 << 20

State = tuple[int, int, int, int, int]
"""Size, time of the last change of the content and of the inode in nanoseconds, device, inode."""


class Trust:
    """The record of one store; loaded when it is first needed. Safe to use from several threads and processes: what is lost is hashed."""

    def __init__(self, root: Path, *, makes_root: bool = False) -> None:
        """makes_root: make the store's directory if it is missing, for a record about other stores."""
        self._root, self._makes_root = root, makes_root
        self._files: dict[str, tuple[State, str]] | None = None

    def hash_files(self, paths: Iterable[Path]) -> dict[Path, str]:
        """SHA-256 of each file, from the record where it may be trusted; raises OSError."""
        known = dict(self._load().values())
        states = {path: _state(path) for path in paths}
        found = {path: known[state] for path, state in states.items() if state in known}
        new = sha256_files(path for path in states if path not in found)
        self.add({path: digest for path, digest in new.items() if _state(path) == states[path]})
        return found | new

    def add(self, digests: Mapping[Path, str]) -> None:
        """Record files that have just been hashed, if the store exists and can be written; raises OSError for files that are gone."""
        if not digests:
            return
        files = self._load()
        for path, digest in digests.items():
            files.pop(str(path), None)  # so that it counts as new
            files[str(path)] = _state(path), digest
        for name in list(files)[:-_MOST_FILES]:
            files.pop(name, None)
        listed = {name: [*state, digest] for name, (state, digest) in list(files.items())}
        with suppress(OSError):
            if find_exposure(self._root) is not None:
                return
            if self._makes_root:
                make_folders(self._root)
            if self._root.is_dir():
                write_file(self._root / TRUST, json.dumps({"format_version": _VERSION, "files": listed}).encode(), is_durable=False)

    def _load(self) -> dict[str, tuple[State, str]]:
        if self._files is None:
            try:
                self._files = {} if find_exposure(self._root) else _parse(read_file(self._root / TRUST, _MOST_BYTES))
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, EngineError):
                self._files = {}
        return self._files


def _parse(data: bytes) -> dict[str, tuple[State, str]]:
    values = json.loads(data)
    if values["format_version"] != _VERSION:
        raise ValueError("another version")
    files = {}
    for name, (size, changed, touched, device, inode, digest) in values["files"].items():
        if {type(size), type(changed), type(touched), type(device), type(inode)} != {int} or type(digest) is not str:
            raise ValueError("not a record")
        files[name] = (size, changed, touched, device, inode), digest
    return files


def _state(path: Path) -> State:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino
