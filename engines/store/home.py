"""Where the store is: the directory that was asked for, else the user's cache directory, else a temporary directory of this user."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from costroute_rt.engines.store.access import find_exposure
from costroute_rt.error import ConfigError

HOME, EXTRA_STORES = "COSTROUTE_HOME", "COSTROUTE_EXTRA_STORES"
_NAME = "costroute-rt"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Home:
    """The directory of the store, and why it is not the usual one."""

    root: Path
    note: str | None = None
    """Why a temporary directory is used, or nothing can be written; None for the directory that was asked for, or the usual one."""
    is_writable: bool = True
    """False: no directory was found in which this user may write."""
    unwritable: Path | None = None
    """The user's cache directory where it exists and cannot be written: engines in it can still be used."""


def find_home(home: str | os.PathLike[str] | None = None) -> Home:
    """`home`, else $COSTROUTE_HOME, else the user's cache directory, else a temporary directory; raises ConfigError for unusable names.

    A directory that was asked for is taken as it is: whether it can be written matters only when something is.
    """
    if home is not None:
        return Home(_directory("home", home))
    if chosen := os.environ.get(HOME):
        return Home(_directory(HOME, chosen))
    usual = _usual()
    if usual is None:
        return _temporary("the home directory is unknown", None)
    exposure = find_exposure(usual)
    if exposure is not None:
        return _temporary(f"{usual} can be changed by others: {exposure.path}: {exposure.problem}", None)
    if not can_write(usual):
        return _temporary(f"{usual} cannot be written", usual)
    return Home(usual)


def find_extra_stores(paths: Iterable[str | os.PathLike[str]] | None = None) -> list[Path]:
    """The directories in `paths`, then those in $COSTROUTE_EXTRA_STORES; raises ConfigError for one that does not exist."""
    if isinstance(paths, str | bytes | os.PathLike):
        raise ConfigError("extra_stores", paths, "a list of directories, not a single one")
    try:
        given = () if paths is None else tuple(paths)
    except TypeError as error:
        raise ConfigError("extra_stores", paths, "a list of directories") from error
    listed: list[tuple[str, str | os.PathLike[str]]] = [("extra_stores", each) for each in given]
    listed += [(EXTRA_STORES, each) for each in os.environ.get(EXTRA_STORES, "").split(os.pathsep) if each]
    found = [(name, each, _directory(name, each)) for name, each in listed]
    for name, each, path in found:
        if not os.path.isdir(path):
            raise ConfigError(name, each, "directories that exist")
    return list(dict.fromkeys(path for _, _, path in found))


def can_write(path: Path) -> bool:
    """Whether this user may write into the directory `path`, or make it."""
    existing = next((folder for folder in (path, *path.parents) if os.path.lexists(folder)), path)
    how = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK, **how)


def _directory(name: str, given: str | os.PathLike[str]) -> Path:
    """The absolute path of a directory that was asked for, which need not exist."""
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ConfigError(name, given, "the path of a directory")
    try:
        os.fsencode(text)
        path = Path(text).expanduser()
    except UnicodeEncodeError as error:
        raise ConfigError(name, given, f"a name that can be encoded in {sys.getfilesystemencoding().upper()}") from error
    except RuntimeError as error:
        raise ConfigError(name, given, "a directory of a user that exists") from error
    try:
        return path.absolute()
    except FileNotFoundError as error:
        raise ConfigError(name, given, "an absolute path, because the working directory does not exist any more") from error


def _usual() -> Path | None:
    """The user's cache directory; None where it is unknown."""
    from platformdirs import user_cache_dir  # seldom needed, and slow to load

    try:
        path = Path(user_cache_dir(_NAME, appauthor=False))
    except RuntimeError:  # newer versions raise it where older ones return `~`
        path = Path()
    if not path.is_absolute():  # no home directory, or a relative XDG_CACHE_HOME, which the standard has programs ignore
        path = Path(os.path.expanduser("~"), ".cache", _NAME)
    return path if path.is_absolute() else None


def _temporary(why: str, unwritable: Path | None) -> Home:
    """A directory in the system's temporary one that this user alone can write; later runs of the user find it again."""
    import tempfile  # seldom needed

    kept = unwritable if unwritable is not None and os.path.isdir(unwritable / "engines") else None
    try:
        root = Path(tempfile.gettempdir()).absolute() / f"{_NAME}-{os.geteuid() if hasattr(os, 'geteuid') else 'user'}"
        problem = _claim(root)
    except OSError as error:
        root = Path(os.sep, "tmp", _NAME)
        problem = f"there is no temporary directory: {error.strerror or error}"
    if problem is not None:
        return Home(root if unwritable is None else unwritable, f"{why}, and {problem}", False)
    note = f"{why}: engines are kept in the temporary directory {root}"
    _warn_once(note)
    return Home(root, note, True, kept)


def _claim(root: Path) -> str | None:
    """Make `root` if it is missing; returns why it must not be used: others could have put engines into it."""
    try:
        root.mkdir(0o700)
    except FileExistsError:
        pass
    except OSError as error:
        return f"{root} cannot be made: {error.strerror}"
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{root} is not a directory"
    if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
        return f"{root} is not for this user alone"
    return None if can_write(root) else f"{root} cannot be written"


@cache
def _warn_once(note: str) -> None:
    _log.warning("%s; set %s to keep them elsewhere", note, HOME)
