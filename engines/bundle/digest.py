"""Fast SHA-256 of files: large buffers, and several files in parallel (hashing releases the interpreter lock)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from costroute_rt.regular_file import open_regular

HashFiles = Callable[[Iterable[Path]], Mapping[Path, str]]
"""Returns the hexadecimal SHA-256 of each file; raises OSError."""

_BUFFER_BYTES = 1 << 20
_SERIAL_BYTES = 4 << 20
"""Below this total size, starting threads costs more than it saves."""


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file's content; raises OSError."""
    digest, buffer = hashlib.sha256(), bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    with open_regular(path) as file:
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            digest.update(view[:count])
    return digest.hexdigest()


def sha256_files(paths: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of each file; large ones are hashed in parallel."""
    listed = list(paths)
    if sum(path.stat().st_size for path in listed) < _SERIAL_BYTES:
        return {path: sha256_file(path) for path in listed}

    from concurrent.futures import ThreadPoolExecutor

    by_size = sorted(listed, key=lambda path: path.stat().st_size, reverse=True)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(by_size, pool.map(sha256_file, by_size), strict=True))
