"""Writes a safetensors file tensor by tensor, all or nothing, so that no more than a block of numbers is in memory."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from costroute_rt.engines.bundle.safetensors_file import ITEM_BYTES
from costroute_rt.error import OutputError, Reason

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PARTIAL = ".part"
_ITEM_BYTES = {**ITEM_BYTES, "I8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTensor:
    """A tensor to write."""

    dtype: str
    """As safetensors calls it: F32, F16, BF16 or I8."""
    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[npt.NDArray[Any]]]
    """Makes its numbers, in C order, little-endian, in blocks of any size."""

    @property
    def length(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


def write_tensors(path: Path, tensors: Mapping[str, NewTensor], begin: Callable[[str], None] = lambda _: None) -> None:
    """Writes the tensors in the order of their names, under a name of its own that is replaced by `path` at the end.

    begin: called with the name of each tensor before it is made; what it raises ends the writing. A file that was not completed is removed,
    or overwritten by the next try if the process was killed. Raises OutputError.
    """
    names = sorted(tensors)
    header, data_bytes = _header({name: tensors[name] for name in names})
    partial = path.with_name(path.name + _PARTIAL)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(path, len(header) + data_bytes)
        try:
            with open(partial, "wb") as file:
                file.write(header)
                for name in names:
                    begin(name)
                    for block in tensors[name].blocks():
                        file.write(block.data)
                if file.tell() != len(header) + data_bytes:
                    raise ValueError(f"{path}: {file.tell()} bytes were written, {len(header) + data_bytes} announced")
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial)
            raise


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turns errors of the file system into OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(path, error.strerror or str(error), reason=Reason.FULL if error.errno in _FULL else None) from error


def _header(tensors: Mapping[str, NewTensor]) -> tuple[bytes, int]:
    """The head of the file, of a multiple of 8 bytes, and how many bytes follow it."""
    entries, end = {}, 0
    for name, tensor in tensors.items():
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.length]}
        end += tensor.length
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, end


def _check_room(path: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed_bytes:
        problem = f"there is no room: {free >> 20} MiB free, {-(-needed_bytes >> 20)} MiB needed"
        raise OutputError(path, problem, reason=Reason.FULL)
