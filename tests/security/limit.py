"""Limits of this process and of its children, for tests of files that never end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_FILE_BYTES, MOST_MORE_BYTES = 256 << 20, 4 << 30


@contextmanager
def limited(name: str, most: int | None) -> Iterator[None]:
    """Sets a limit of the operating system, such as RLIMIT_FSIZE; None raises it as far as allowed. Does nothing on Windows."""
    try:
        import resource
    except ModuleNotFoundError:
        yield
        return
    kind = getattr(resource, name)
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (hard if most is None or (hard != resource.RLIM_INFINITY and hard < most) else most, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def write_terabyte(path: Path) -> None:
    """A file of a terabyte of zeros that takes no room on the disk; a copy of it would."""
    with limited("RLIMIT_FSIZE", None), open(path, "wb") as file:
        file.truncate(1 << 40)
