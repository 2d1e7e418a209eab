"""Who can change the store: nothing is used that others than this user and root could have put there.

A directory is trusted if it, and each directory and link on the way to it, belongs to this user or to root and cannot be written by others.
On the way, a directory that all can write is accepted if it is sticky, such as /tmp: what belongs to this user there stays. A group counts
as others unless all its members are this user and root. Windows has other means, and no such check: its user directories are private.
Directories in $COSTROUTE_TRUSTED_STORES are exempt, for a container that serves one user, or for a group that trusts its members.
"""

from __future__ import annotations

import os
import stat
import sys
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from costroute_rt.engines.machine.durable import describe_user
from costroute_rt.error import EngineError, Reason
from costroute_rt.regular_file import read_regular

TRUSTED_STORES = "COSTROUTE_TRUSTED_STORES"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS = 40
_ADMINISTRATORS = {0, 80} if sys.platform == "darwin" else {0}
"""Groups whose members may become root anyway."""


class Exposure(NamedTuple):
    """A file, directory or link that others can change, and why."""

    path: Path
    problem: str


def check_access(path: Path) -> None:
    """Raise EngineError if others can change what lies at `path`, which need not exist yet."""
    exposure = find_exposure(path)
    if exposure is not None:
        raise _make_error(exposure)


def find_exposure(path: Path) -> Exposure | None:
    """The first directory or link on the way to the directory `path`, or itself, that others can change; None if there is none."""
    if not hasattr(os, "geteuid") or is_exempt(path):
        return None
    here, names, links = os.sep, list(path.absolute().parts[1:]), 0
    exposure = _exposure(here, os.lstat(here), is_way=bool(names))
    while names and exposure is None:
        name = names.pop(0)
        if name == os.pardir:
            here = os.path.dirname(here)
            continue
        entry = os.path.join(here, name)
        try:
            found = os.lstat(entry)
            target = os.readlink(entry) if stat.S_ISLNK(found.st_mode) else None
        except OSError:  # what is missing or hidden cannot be used either
            return None
        exposure = _exposure(entry, found, is_way=bool(names) or target is not None)
        if target is None:
            here = entry
        elif (links := links + 1) > _MOST_LINKS:
            return Exposure(Path(entry), "it is a link that leads in a circle")
        else:
            here = os.sep if os.path.isabs(target) else here
            names[:0] = [part for part in target.split(os.sep) if part not in ("", os.curdir)]
    return exposure


def check_file(path: Path, found: os.stat_result) -> None:
    """Raise EngineError if others can change the content of an open file of the store."""
    if not hasattr(os, "geteuid") or is_exempt(path):
        return
    exposure = _exposure(str(path), found, is_way=False)
    if exposure is not None:
        raise _make_error(exposure)


def is_exempt(path: Path) -> bool:
    """Whether the user trusts everyone who can write there."""
    listed = [Path(each).absolute() for each in os.environ.get(TRUSTED_STORES, "").split(os.pathsep) if each]
    return any(path.absolute().is_relative_to(each) for each in listed)


def read_file(path: Path, most_bytes: int) -> bytes:
    """The content of a file of the store.

    Raises OSError for a link, and for anything else than a regular file of at most `most_bytes`; EngineError if others can change it.
    """
    return read_regular(path, most_bytes, follows_links=False, check=partial(check_file, path))


def _make_error(exposure: Exposure) -> EngineError:
    return EngineError(exposure.problem, reason=Reason.UNTRUSTED, path=exposure.path)


def _exposure(path: str, found: os.stat_result, *, is_way: bool) -> Exposure | None:
    """How others can change one entry; is_way: it is a link, or a directory above the one in question."""
    if found.st_uid not in (0, os.geteuid()) and not (is_way and found.st_uid == _unmapped_uid()):
        return Exposure(Path(path), f"it belongs to another user ({describe_user(found.st_uid)})")
    mode = found.st_mode
    if stat.S_ISLNK(mode) or not mode & _OTHERS_WRITE or (is_way and mode & stat.S_ISVTX):
        return None
    if mode & stat.S_IWOTH:
        return Exposure(Path(path), "all users can write it")
    if not _is_private(found.st_gid):
        return Exposure(Path(path), f"a group can write it (gid {found.st_gid})")
    return Exposure(Path(path), "an access control list may let others write it") if _has_list(path) else None


@cache
def _is_private(gid: int) -> bool:
    """Whether nobody but this user and root is in a group, as on systems that make a group for each user."""
    import grp
    import pwd

    if gid in _ADMINISTRATORS:
        return True
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(gid).gr_mem}
    except KeyError:  # the group, or a member, is unknown here
        return False
    return members | {each.pw_uid for each in pwd.getpwall() if each.pw_gid == gid} <= {0, os.geteuid()}


def _has_list(path: str) -> bool:
    """Whether the group's bits of the mode stand for an access control list, on systems that show it."""
    try:
        return "system.posix_acl_access" in os.listxattr(path, follow_symlinks=False)
    except (AttributeError, OSError):
        return False


@cache
def _unmapped_uid() -> int | None:
    """The owner that Linux shows, in a user namespace, for files of users outside of it, root among them; None outside a namespace."""
    try:
        mapped = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
        return None if mapped == ["0", "0", "4294967295"] else int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
