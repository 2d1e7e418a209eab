"""Reading files of others: regular files alone, and never more than expected.

A pipe or a device under the name of a file would hold the program for ever, or fill the memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

ReadFile = Callable[[Path, int], bytes]
"""Returns the content of a file of at most so many bytes; raises OSError."""

_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
"""Opening a pipe does not wait for its other end."""
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def open_regular(path: str | os.PathLike[str], *, follows_links: bool = True) -> BinaryIO:
    """The regular file at `path`, or that a link there leads to, open for reading; raises OSError for anything else.

    follows_links: False refuses a link, where the system can.
    """
    flags = _NO_WAIT if follows_links else _NO_WAIT | _NO_LINK
    file = open(path, "rb", opener=lambda name, usual: os.open(name, usual | flags))  # noqa: SIM115  (for the caller)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return file


def read_regular(
    path: str | os.PathLike[str],
    most_bytes: int,
    *,
    follows_links: bool = True,
    check: Callable[[os.stat_result], object] | None = None,
) -> bytes:
    """The content of the regular file at `path`; raises OSError for anything else, and for a file of more than `most_bytes`.

    check: called with the state of the opened file; what it raises passes through.
    """
    with open_regular(path, follows_links=follows_links) as file:
        found = os.fstat(file.fileno())
        if check is not None:
            check(found)
        data = file.read(most_bytes + 1) if found.st_size <= most_bytes else None
    if data is None or len(data) > most_bytes:
        size = f"{most_bytes >> 20} MiB" if most_bytes >= 1 << 20 else f"{most_bytes >> 10} KiB"
        raise OSError(errno.EFBIG, f"it is larger than {size}", os.fspath(path))
    return data


def find_link_out(path: Path, root: Path) -> Path | None:
    """Where `path` leads, if a link in it leads out of the folder `root`; None if it stays inside.

    The caches of model hubs consist of links: from REPOSITORY/snapshots/... to REPOSITORY/blobs/, which count as inside.
    """
    real, inside = path.resolve(), root.resolve()
    if real.is_relative_to(inside):
        return None
    snapshots = next((folder for folder in (inside, *inside.parents) if folder.name == "snapshots"), None)
    is_blob = snapshots is not None and real.parent == snapshots.parent / "blobs" and path.parent.resolve().is_relative_to(inside)
    return None if is_blob else real
