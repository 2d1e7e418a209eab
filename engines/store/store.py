"""The store: a directory of engines, each under the digest of its key.

    ROOT/engines/DIGEST/   manifest.json, manifest.sha256, the backend's files, costs.json
    ROOT/locks/DIGEST.lock, DIGEST.holder
    ROOT/trust.json        hashes of files that need not be hashed again
    ROOT/costs/DIGEST.json costs that this user measured of an engine whose directory belongs to others

A directory with its final name is complete: it was written under another name, synced, and renamed. An engine that is replaced
lies in .DIGEST.*/old meanwhile, and is moved back if its builder dies between the two renames. Builders of one key wait for
each other. An engine that proved wrong or slow is quarantined: its manifest stays, with the reason, and its files go.

Reading needs no lock and no permission to write. Extra stores, which ship beside an application, are read after the store itself, and
nothing is ever written to them.

Nothing is used that others than this user and root could have written (access.py), and no engine with files that its manifest does not
list, or that are not regular files: a library would open them unseen.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from costroute_rt.engines.backends.key import ANY_DRIVER, DIGEST_LENGTH, EngineKey, FieldDifference
from costroute_rt.engines.bundle.digest import HashFiles, sha256_file, sha256_files
from costroute_rt.engines.bundle.manifest import FileEntry
from costroute_rt.engines.bundle.manifest_reader import check_path
from costroute_rt.engines.bundle.section import Section, canonical_json, parse_section, shorten
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.durable import (
    is_in_use,
    make_folder_beside,
    make_folders,
    make_store_error,
    store_errors,
    sync_files,
    sync_folder,
)
from costroute_rt.engines.store.access import check_access, check_file, read_file
from costroute_rt.engines.store.cost import COSTS
from costroute_rt.engines.store.home import find_extra_stores, find_home
from costroute_rt.engines.store.lock import hold_lock
from costroute_rt.engines.store.trust import Trust
from costroute_rt.error import EngineError, Reason

FORMAT, FORMAT_VERSION = "costroute-engine", 1
MANIFEST, MANIFEST_SHA256 = "manifest.json", "manifest.sha256"
DAMAGED = "damaged"
"""State of a directory whose manifest can be read, and is not an engine's."""
_ADDED = re.compile(r"(costs\.json|runtime\.cache)|\.(costs\.json|runtime\.cache)\.[0-9a-f]{16}")
"""Files that come into an engine's directory after it was written, and what a killed process leaves of them: measured costs, and the
kernels that TensorRT for RTX compiles for the device."""
_MANIFEST_BYTES, _MOST_BUILD_S, _MOST_FILE_BYTES, _LONGEST_FIELD = 1 << 20, 1e9, 1 << 60, 2000
_REPLACED, _REMOVED = "old", "removed"
_RENAME_S = 5.0
"""How long a reader waits for an engine that is being replaced; that takes two renames."""
_ENGINE = re.compile(f"[0-9a-f]{{{DIGEST_LENGTH}}}")
_LEFTOVER = re.compile(rf"\.({_ENGINE.pattern})\..+")
"""Directories of other names are not ours: they are neither listed nor removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEngine:
    """What the store knows about one engine."""

    path: Path
    digest: str
    key: EngineKey
    files: Mapping[str, FileEntry]
    built_at: str
    """UTC, ISO 8601"""
    build_s: float
    gate: Mapping[str, Any]
    """What the check after the build found: max_abs_error, tolerance, engine_ms, reference_ms."""
    source: str
    """The bundle it was built from."""
    quarantined: str | None
    """Why it must not be used; None for a good one."""
    sha256: str
    """SHA-256 of the manifest, which lists the hashes of all files."""
    used_at_s: float
    """When it was last opened, else built; seconds since 1970."""

    @property
    def size_bytes(self) -> int:
        return sum(entry.bytes for entry in self.files.values())

    @property
    def was_checked(self) -> bool:
        """Whether the gate ran, whatever it found; for an engine built for any driver, whether it ran on this machine's device."""
        return bool(self.gate) and self.gate.get("device") == portable_device(self.key.driver)

    @property
    def is_proved(self) -> bool:
        """Whether it passed the gate; for an engine built for any driver, on this machine's device."""
        return self.quarantined is None and self.was_checked

    def make_error(self, problem: str, reason: Reason, path: Path | None = None) -> EngineError:
        """About this engine, or a file of it."""
        return EngineError(problem, reason=reason, path=path or self.path, setup=self.key.setup)


@dataclass(frozen=True, slots=True)
class Verified:
    """The state of one directory in the store or an extra store."""

    path: Path
    digest: str
    graph: str
    damage: EngineError | None
    """With the engine's setup and bundle where its manifest can be read."""
    quarantined: str | None
    """Why an engine whose files are intact must not be used."""

    @property
    def is_good(self) -> bool:
        """Whether its files are as they were written, and it may be used."""
        return self.damage is None and self.quarantined is None


@dataclass(frozen=True, slots=True)
class Store:
    """A directory of engines; nothing is written before the first build."""

    root: Path
    extras: tuple[Path, ...] = ()
    """Roots of extra stores, which are searched after this one."""
    note: str | None = None
    """Why a temporary directory is used, or none that can be written was found; None otherwise."""
    is_writable: bool = True
    """False: no directory was found in which this user may write."""
    _trust: Trust = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_trust", Trust(self.root, makes_root=bool(self.extras) and self.is_writable))

    @classmethod
    def open(cls, home: str | os.PathLike[str] | None = None, extra_stores: Iterable[str | os.PathLike[str]] | None = None) -> Store:
        """The store in `home`, else in $COSTROUTE_HOME, else in the user's cache directory, else in a temporary one.

        extra_stores: searched after it, and before those in $COSTROUTE_EXTRA_STORES.
        Raises ConfigError for paths that are no directories, such as `~nobody`.
        """
        found, extras = find_home(home), find_extra_stores(extra_stores)
        extras += [] if found.unwritable is None else [found.unwritable]
        return cls(found.root, tuple(each for each in extras if each != found.root), found.note, found.is_writable)

    @property
    def folder(self) -> Path:
        return self.root / "engines"

    def owns(self, stored: StoredEngine) -> bool:
        """Whether an engine lies in this store, not in an extra one."""
        return stored.path.parent == self.folder

    def peek(self, key: EngineKey) -> StoredEngine | None:
        """The engine of that key by its manifest alone, None where there is none; raises EngineError for a damaged manifest.

        An engine of an extra store takes the place of one that is damaged here.
        """
        damage = None
        for root in (self.root, *self.extras):
            try:
                stored = self._peek(root / "engines" / key.digest, key)
            except EngineError as error:
                damage = damage or error
            else:
                if stored is not None:
                    return stored
        if damage is not None:
            raise damage
        return None

    def find(self, key: EngineKey) -> StoredEngine | None:
        """As `peek`, with the hashes of its files checked; raises EngineError for an engine that is damaged or quarantined."""
        stored = self.peek(key)
        if stored is not None:
            self.check_files(stored)
            if stored.quarantined:
                raise stored.make_error(f"the engine is quarantined: {stored.quarantined}", Reason.QUARANTINED)
        return stored

    def check_files(self, stored: StoredEngine) -> None:
        """Compare an engine's files with its manifest; raises EngineError for the first that has changed."""
        check_files(stored, self.hash_files)

    def hash_files(self, paths: Iterable[Path]) -> Mapping[Path, str]:
        """SHA-256 of each file, of this store or not; only those are read that have changed since they were last hashed."""
        return self._trust.hash_files(paths)

    def remember(self, digests: Mapping[Path, str]) -> None:
        """Record the hashes of files that are known to be unchanged since they were hashed."""
        with suppress(OSError):
            self._trust.add(digests)

    def engines(self) -> list[StoredEngine]:
        """Every engine with a readable manifest, in the extra stores too, sorted by graph."""
        return [stored for stored in self.everything() if stored.sha256]

    def everything(self) -> list[StoredEngine]:
        """As `engines`, with those whose manifest cannot be read; they have an empty `sha256`."""
        found = []
        for path in self._all_folders():
            with suppress(FileNotFoundError):  # it was removed this moment
                found.append(_describe(path))
        return sorted(found, key=lambda stored: (stored.key.graph, stored.digest))

    def verify(self) -> list[Verified]:
        """Hash everything, in the extra stores too; one entry per directory, damaged ones too."""
        return [_verify(path) for path in self._all_folders()]

    def explain(self, key: EngineKey) -> list[FieldDifference]:
        """The fields in which the nearest stored engine of the same graph differs; empty if that key is stored, or no engine of the graph.

        Nearest is one of the same backend and provider, then the one that differs in the fewest fields.
        """
        others = [key.differences(stored.key) for stored in self.engines() if stored.key.graph == key.graph]
        return min(others, key=lambda found: (not {"backend", "provider"}.isdisjoint(d.field for d in found), len(found)), default=[])

    def remove(self, digest: str, timeout_s: float | None = None) -> StoredEngine:
        """Remove the engine whose digest starts with this; raises EngineError if none or several do, TimeoutError as `lock` does.

        Engines of extra stores stay. A file that another process has open may stay too, until `sweep` finds that it can go.
        """
        paths = [path for path in self._folders() if digest and path.name.startswith(digest)]
        if len(paths) != 1:
            problem = f"{len(paths) or 'no'} engines have a digest that starts with {digest!r}"
            if any(digest and path.name.startswith(digest) for path in self._all_folders()):
                problem += ", except in an extra store, from which nothing is removed"
            raise EngineError(problem, reason=Reason.AMBIGUOUS, path=self.folder)
        (path,) = paths
        with self.lock(path.name, timeout_s), store_errors(path):
            stored = _describe(path)
            shutil.rmtree(self._move_away(path, _REMOVED), ignore_errors=True)
        return stored

    def note_use(self, stored: StoredEngine) -> None:
        """Record that an engine was opened now, for the removal of unused ones; does nothing where the store cannot be written."""
        if self.owns(stored):
            with suppress(OSError):
                os.utime(stored.path / MANIFEST)

    def size_bytes(self) -> int:
        """Of all files of all engines in this store itself, as far as they can be seen."""
        return sum(disk_bytes(path) for path in self._folders())

    @contextmanager
    def lock(
        self,
        digest: str,
        timeout_s: float | None = None,
        poll: Callable[[float | None], object] | None = None,
        on_wait: Callable[[], object] | None = None,
    ) -> Iterator[None]:
        """Hold the lock of a key, or another one, as `lock.hold_lock` does."""
        self._check_writable()
        check_access(self.root)
        with hold_lock(self.root / "locks", digest, timeout_s=timeout_s, poll=poll, on_wait=on_wait):
            yield

    def write(self, key: EngineKey, fill: Callable[[Path], Mapping[str, Any]]) -> StoredEngine:
        """Put an engine under its final name. The caller holds the key's lock.

        fill: writes the engine's files into the directory it is given and returns the manifest entries built_at, build_s, gate, source,
        quarantined. When it raises, nothing is left.
        """
        self._check_writable()
        final = self.folder / key.digest
        with store_errors(self.folder):
            self.make_folder()
            work = make_folder_beside(final, 0o755)
        try:
            with store_errors(work):
                _seal(work, {**fill(work), "key": key.to_json()})
                away = self._move_away(final, _REPLACED) if final.exists() else None
                os.rename(work, final)
                sync_folder(self.folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        if away is not None:
            shutil.rmtree(away, ignore_errors=True)  # what another process has open stays, until it is swept
        stored = load_stored(final)
        self.remember({final / name: entry.sha256 for name, entry in stored.files.items()})
        return stored

    def make_folder(self) -> None:
        """Make the directory of the engines if it is missing; raises OSError, EngineError if others can write it."""
        check_access(self.root)
        make_folders(self.folder)
        check_access(self.folder)

    def sweep(self) -> list[Path]:
        """Remove what killed builds left behind, unless that key is being built or permission is missing; returns what was removed."""
        removed = []
        for path, match in self._leftovers():
            try:
                with self.lock(match[1], timeout_s=0):
                    self._restore(match[1])
                    shutil.rmtree(path, ignore_errors=True)
            except (TimeoutError, EngineError):
                continue
            if not path.exists():
                removed.append(path)
        return removed

    def _leftovers(self) -> list[tuple[Path, re.Match[str]]]:
        """None where they cannot be seen."""
        try:
            return _matching(self.folder, _LEFTOVER)
        except EngineError:
            return []

    def _peek(self, path: Path, key: EngineKey) -> StoredEngine | None:
        """The engine in `path`, of this store or an extra one; None where there is none."""
        with store_errors(path):
            if not _is_folder(path) and not (path.parent == self.folder and self._bring_back(key.digest)):
                return None
        _check_place(path)
        stored = load_stored(path)
        if stored.key != key:
            problem = "its manifest belongs to another engine"
            raise EngineError(problem, reason=Reason.DAMAGED, path=path, setup=key.setup)
        return stored

    def _check_writable(self) -> None:
        if not self.is_writable:
            raise EngineError(f"there is no directory to write engines to: {self.note}", reason=Reason.PERMISSION, path=self.root)

    def _folders(self) -> list[Path]:
        return [path for path, _ in _matching(self.folder, _ENGINE)]

    def _all_folders(self) -> list[Path]:
        """With those of the extra stores."""
        return [*self._folders(), *(path for root in self.extras for path, _ in _matching(root / "engines", _ENGINE))]

    def _move_away(self, path: Path, name: str) -> Path:
        """Move a directory into a new one that is never loaded, under `name`; returns the new one. Raises EngineError if it is in use."""
        away = make_folder_beside(path)
        try:
            os.rename(path, away / name)
        except OSError as error:
            with suppress(OSError):
                away.rmdir()
            if is_in_use(error, is_rename=True):
                raise EngineError("another process is using the engine", reason=Reason.IN_USE, path=path) from error
            raise
        return away

    def _bring_back(self, digest: str) -> bool:
        """Whether an engine exists after all: one that is being replaced this moment, or whose builder died while replacing it."""
        if self._replaced(digest):
            with suppress(TimeoutError, EngineError), self.lock(digest, _RENAME_S):
                self._restore(digest)
        return os.path.isdir(self.folder / digest)

    def _restore(self, digest: str) -> None:
        """Move an engine back that was moved away for a new one which was never completed. The caller holds the key's lock."""
        for path in self._replaced(digest):
            if not (self.folder / digest).exists():
                with store_errors(path):
                    os.rename(path, self.folder / digest)

    def _replaced(self, digest: str) -> list[Path]:
        return [path / _REPLACED for path in self.folder.glob(f".{digest}.*") if (path / _REPLACED).is_dir()]


def disk_bytes(path: Path) -> int:
    """Size of the files of an engine, as far as they can be seen; 0 for one that somebody removed."""
    try:
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    except OSError:
        return 0


def _matching(folder: Path, name: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
    """The directories in `folder` with such a name, in order; none if it does not exist."""
    with store_errors(folder):
        if not _is_folder(folder):
            return []
        return [(path, found) for path in sorted(folder.iterdir()) if (found := name.fullmatch(path.name)) and path.is_dir()]


def _is_folder(path: Path) -> bool:
    """Whether a directory exists; raises OSError where that cannot be seen, which `os.path.isdir` takes for no."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def portable_device(driver: str) -> str | None:
    """The device and driver that run an engine made for any driver; None for one whose key names them."""
    return " ".join(device.gpu()) if driver == ANY_DRIVER else None


def load_stored(path: Path) -> StoredEngine:
    """Read an engine's manifest; raises EngineError where it is missing, damaged or of another format."""

    def fail(problem: str) -> NoReturn:
        raise EngineError(problem, reason=Reason.DAMAGED, path=path / MANIFEST)

    try:
        data, stated = (read_file(path / name, _MANIFEST_BYTES) for name in (MANIFEST, MANIFEST_SHA256))
    except PermissionError as error:
        raise make_store_error(error, path) from error
    except OSError as error:
        fail(f"the engine's manifest cannot be read: {error.strerror or error}")
    found = hashlib.sha256(data).hexdigest()
    if found.encode() != stated.strip():
        fail(f"the engine's manifest does not match {MANIFEST_SHA256}")
    section = parse_section(data, fail)
    try:
        canonical_json(section.values)
    except (ValueError, RecursionError) as error:
        fail(f"the engine's manifest has text that is not Unicode, or is nested too deep: {error}")
    stated_format = section.values.get("format"), section.values.get("format_version")
    if stated_format != (FORMAT, FORMAT_VERSION):
        fail(f"format and version are {shorten(stated_format)}: expected {(FORMAT, FORMAT_VERSION)}")
    return _stored(path, section, found)


def _check_place(path: Path) -> None:
    """Raise EngineError if others can write the directory of an engine, that of all engines, or the store."""
    for each in (path.parent.parent, path.parent, path):
        check_access(each)


def _check_names(stored: StoredEngine) -> None:
    """Raise EngineError if an engine's directory has something that its manifest does not list; the files are opened by their names."""
    with store_errors(stored.path):
        names = os.listdir(stored.path)
    for name in sorted(names):
        if name not in stored.files and name not in (MANIFEST, MANIFEST_SHA256) and not _ADDED.fullmatch(name):
            raise stored.make_error("the engine's manifest does not list it", Reason.DAMAGED, stored.path / name)


def check_files(stored: StoredEngine, hash_files: HashFiles = sha256_files) -> None:
    """Compare every file of an engine with its manifest; raises EngineError for the first that has changed.

    hash_files: returns the SHA-256 of each file.
    """
    _check_names(stored)
    paths = {stored.path / name: entry for name, entry in stored.files.items()}
    for path, entry in paths.items():
        try:
            found_now = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise stored.make_error("a file of the engine is missing", Reason.DAMAGED, path) from None
        except OSError as error:
            raise make_store_error(error, path) from error
        if not stat.S_ISREG(found_now.st_mode):
            raise stored.make_error("it is not a regular file", Reason.DAMAGED, path)
        check_file(path, found_now)
        if found_now.st_size != entry.bytes:
            problem = f"it has {found_now.st_size} bytes, the manifest says {entry.bytes}"
            raise stored.make_error(problem, Reason.DAMAGED, path)
    with store_errors(stored.path):
        found = hash_files(paths)
    for path, entry in paths.items():
        if found[path] != entry.sha256:
            problem = f"its content is not what was built (SHA-256 begins {found[path][:12]})"
            raise stored.make_error(problem, Reason.DAMAGED, path)


def _stored(path: Path, section: Section, sha256: str) -> StoredEngine:
    files = {
        check_path(name, section.fail, "a file"): FileEntry(e.sha256("sha256"), e.integer("bytes")) for name, e in section.sections("files")
    }
    quarantined = section.text("quarantined") if section.values.get("quarantined") is not None else None
    if not files and quarantined is None:
        section.fail("the engine has no files")
    for name, entry in files.items():
        if "/" in name or not name.isprintable() or entry.bytes > _MOST_FILE_BYTES:
            section.fail(f"manifest files has an impossible entry: {shorten(name)}")
    key = EngineKey.from_section(section.section("key"))
    for name, value in key.to_json().items():
        if len(value) > _LONGEST_FIELD:
            section.fail(f"manifest key.{name} has {len(value)} characters")
    build_s, gate = section.number("build_s", minimum=0), dict(section.section("gate").values)
    if build_s > _MOST_BUILD_S or not all(_is_result(name, value) for name, value in gate.items()):
        section.fail("manifest build_s or gate has impossible values")
    return StoredEngine(
        path=path,
        digest=path.name,
        key=key,
        files=files,
        built_at=section.text("built_at"),
        build_s=build_s,
        gate=gate,
        source=section.text("source"),
        quarantined=quarantined,
        sha256=sha256,
        used_at_s=(path / MANIFEST).stat().st_mtime,
    )


def _is_result(name: str, value: Any) -> bool:
    """Whether it is a result of the gate: the name of a device, or a number that can be computed with."""
    if name == "device":
        return isinstance(value, str)
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _seal(folder: Path, entries: Mapping[str, Any]) -> None:
    """Write the manifest for the files in `folder`, and make all of it durable."""
    files = {path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())}
    data = canonical_json({**entries, "format": FORMAT, "format_version": FORMAT_VERSION, "files": files})
    (folder / MANIFEST).write_bytes(data)
    (folder / MANIFEST_SHA256).write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n")
    mode = stat.S_IMODE((folder / MANIFEST).stat().st_mode) & ~0o022
    for name in (*files, MANIFEST, MANIFEST_SHA256):  # not every library follows the umask, which may let others write
        if stat.S_IMODE((folder / name).stat().st_mode) != mode:
            with suppress(OSError):
                (folder / name).chmod(mode)
    sync_files(folder)


def _verify(path: Path) -> Verified:
    try:
        _check_place(path)
        stored = load_stored(path)
    except EngineError as error:
        return Verified(path, path.name, "unknown", error, None)
    try:
        check_files(stored)
    except EngineError as error:
        return Verified(path, path.name, stored.key.graph, error.located(engine=stored.key.graph, bundle=stored.source), None)
    return Verified(path, path.name, stored.key.graph, None, stored.quarantined)


def _describe(path: Path) -> StoredEngine:
    """What is known about a directory, damaged or not; raises FileNotFoundError for one that was removed."""
    try:
        _check_place(path)
        return load_stored(path)
    except EngineError as error:
        words = {Reason.PERMISSION: "unreadable", Reason.UNTRUSTED: "not trusted"}
        problem = f"{words[error.reason]}: {error.problem}" if error.reason in words else DAMAGED
    blank = dict.fromkeys(EngineKey.__dataclass_fields__, "unknown")
    sizes = dict[str, FileEntry]()
    with suppress(PermissionError):
        sizes = {file.name: FileEntry("0" * 64, file.stat().st_size) for file in path.iterdir() if file.is_file() and file.name != COSTS}
    return StoredEngine(
        path=path, digest=path.name, key=EngineKey(**blank), files=sizes, built_at="unknown", build_s=0.0, gate={},
        source="unknown", quarantined=problem, sha256="", used_at_s=0.0,
    )  # fmt: skip
