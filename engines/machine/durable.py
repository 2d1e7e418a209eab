"""Writing so that a crash, a full disk or a second process never leaves something half written under its final name."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from costroute_rt.error import EngineError, Reason, StoreFullError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SCARCE_BYTES = 1 << 20


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into StoreFullError or EngineError with a remedy; a lock's timeout passes."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFullError(f"there is no room to write: {error.strerror}", reason=Reason.FULL, path=path) from error
        problem = f"the store cannot be used: {error.strerror or error}"
        raise EngineError(problem, reason=Reason.STORE, path=error.filename or path) from error


def check_room(path: Path, needed_bytes: int) -> None:
    """Raise StoreFullError where the disk of `path`, which need not exist yet, has fewer bytes free."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        problem = f"there is no room to write: {free >> 20} MiB free, {-(-needed_bytes >> 20)} MiB needed"
        raise StoreFullError(problem, reason=Reason.FULL, path=path)


def is_full(path: Path) -> bool:
    """Whether the disk below `path` is full."""
    return shutil.disk_usage(path).free < _SCARCE_BYTES


def write_file(path: Path, data: bytes) -> None:
    """Replace `path` by a file with this content, all or nothing."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    sync_folder(path.parent)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `target` when the block ends; if anything fails, `target` is as before.

    The folder is made beside `target`, whose parents are created. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    new, old = staging / "new", staging / "old"
    try:
        new.mkdir()
        yield new
        try:
            if os.path.lexists(target):
                os.replace(target, old)
            os.replace(new, target)
        except BaseException:
            if os.path.lexists(old):
                os.replace(old, target)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if os.path.lexists(target) or not os.path.lexists(old):  # otherwise `old` is the only copy
            shutil.rmtree(staging, ignore_errors=True)


def sync_files(folder: Path) -> None:
    """Make every file of `folder`, and the folder, survive a power cut."""
    for path in folder.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut; systems that cannot open folders do without."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
