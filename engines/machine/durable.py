"""Writing so that a crash, a full disk or a second process never leaves something half written under its final name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from costroute_rt.error import EngineError, Reason, StoreFullError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_SHARING_VIOLATIONS = {32, 33}
"""Windows: another process has the file open, or a part of it locked."""
_ACCESS_DENIED = 5
"""Windows: also what renaming a folder answers while a file in it is open."""
_SCARCE_BYTES = 1 << 20


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into StoreFullError or EngineError with a remedy; a lock's timeout passes."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise make_store_error(error, path) from error


def make_store_error(error: OSError, path: Path) -> EngineError:
    """The error about a file or folder of the store, with the reason: no room, in use, somebody else's, or something else."""
    where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
    if error.errno in _FULL:
        return StoreFullError(f"there is no room to write: {error.strerror}", reason=Reason.FULL, path=path)
    if is_in_use(error):
        return EngineError("another process is using it", reason=Reason.IN_USE, path=where)
    if error.errno in _FORBIDDEN:
        return EngineError(f"the store cannot be used: {_describe_refusal(error, where)}", reason=Reason.PERMISSION, path=where)
    return EngineError(f"the store cannot be used: {error.strerror or error}", reason=Reason.STORE, path=where)


def is_in_use(error: OSError, *, is_rename: bool = False) -> bool:
    """Whether another process has the file open, on systems that then refuse to move or remove it.

    is_rename: the error is about renaming a folder, beside which this process could make another one.
    """
    code = getattr(error, "winerror", None)
    return error.errno in (errno.EBUSY, errno.ETXTBSY) or code in _SHARING_VIOLATIONS or (is_rename and code == _ACCESS_DENIED)


def _describe_refusal(error: OSError, path: Path) -> str:
    """`it belongs to another user (uid 0, root)`: of the first existing folder above `path`, or of `path` itself."""
    reason = error.strerror or str(error)
    owner = None if error.errno == errno.EROFS or not hasattr(os, "geteuid") else _owner(path)
    if owner is None or owner == os.geteuid():
        return reason
    return f"{reason}: it belongs to another user ({describe_user(owner)})"


def _owner(path: Path) -> int | None:
    """User id of the owner of `path`, else of the first folder above it that can be seen."""
    for each in (path, *path.parents):
        with suppress(OSError):
            return each.stat().st_uid
    return None


def describe_user(uid: int) -> str:
    """`uid 0, root`."""
    import pwd

    try:
        return f"uid {uid}, {pwd.getpwuid(uid).pw_name}"
    except KeyError:  # in a container, an id without a name
        return f"uid {uid}"


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


def write_file(path: Path, data: bytes, *, is_durable: bool = True) -> None:
    """Replace `path` by a file with this content, all or nothing. Whatever the umask, only this user may write it.

    is_durable: wait until it would survive a power cut.
    """
    name = _unused(path)
    try:
        with open(name, "xb", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
            file.write(data)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    if is_durable:
        sync_folder(path.parent)


def make_folder_beside(path: Path, mode: int = 0o777) -> Path:
    """A new empty folder called .NAME.*, beside `path`, with the mode that the umask allows (`tempfile` makes folders for one user)."""
    made = _unused(path)
    made.mkdir(mode)
    return made


def make_folders(path: Path) -> None:
    """Make a folder, and its parents, where they are missing. Whatever the umask, only this user may write them. Raises OSError."""
    for each in reversed((path, *path.parents)):
        if not each.is_dir():
            each.mkdir(0o755, exist_ok=True)


def _unused(path: Path) -> Path:
    """A hidden name beside `path` that nothing has."""
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}")


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `target` when the block ends; if anything fails, `target` is as before.

    The folder is made beside `target`, whose parents are created. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = make_folder_beside(target)
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
