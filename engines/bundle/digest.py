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
    """SHA-256 of each file; large ones are hashed in parallel, and a file with several names (hard links) once."""
    states = {path: path.stat() for path in paths}
    first: dict[tuple[int, int], Path] = {}
    same = {path: first.setdefault((state.st_dev, state.st_ino), path) for path, state in states.items()}
    digests = _hash_all({path: states[path].st_size for path in first.values()})
    return {path: digests[one] for path, one in same.items()}


def _hash_all(sizes: Mapping[Path, int]) -> dict[Path, str]:
    if sum(sizes.values()) < _SERIAL_BYTES:
        return {path: sha256_file(path) for path in sizes}

    from concurrent.futures import ThreadPoolExecutor

    by_size = sorted(sizes, key=lambda path: sizes[path], reverse=True)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(by_size, pool.map(sha256_file, by_size), strict=True))
