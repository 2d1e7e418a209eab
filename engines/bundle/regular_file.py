"""Opening files that may come from anybody: regular files only, and no more bytes than expected."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; raises OSError for a pipe, a device or a directory, without waiting for a writer."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "it is not a regular file", str(path))
        return open(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """The content of a regular file; raises OSError, ValueError where it is larger than the limit."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = read_exactly(file, min(size, limit_bytes) + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"it is larger than {describe_bytes(limit_bytes)}")
    return data


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """The next `size` bytes of an unbuffered file, fewer only at its end."""
    parts, left = list[bytes](), size
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def describe_bytes(size: int) -> str:
    """A size for messages: 2 MiB, 700 bytes."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"
