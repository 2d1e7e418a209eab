"""Writes tensors as torch.save does, without torch: a zip archive of a pickle and a file for each storage."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.tensor_file import Tensors, encode

_STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage", "F64": "DoubleStorage", "I64": "LongStorage"}
_ALIGNMENT = 64


def write_torch_file(path: Path, tensors: Tensors, *, dtype: str | None = None, inside: str | None = None, **others: int) -> Path:
    """dtype: stores all tensors that are float32 as F16 or BF16. inside: name of the dict that holds them, such as state_dict.

    others: numbers beside that dict.
    """
    data, storages = b"(", {}
    for key, (name, tensor) in enumerate(tensors.items()):
        kind, storages[str(key)] = encode(tensor, dtype)
        data += text(name) + rebuild_tensor(_STORAGES[kind], str(key), tensor.shape)
    state = b"ccollections\nOrderedDict\n)R" + data + b"u}" + text("_metadata") + b"}sb"  # with a state, as that of a module has
    if inside is not None:
        state = b"}(" + text(inside) + state + b"".join(text(name) + integer(value) for name, value in others.items()) + b"u"
    return write_archive(path, b"\x80\x02" + state + b".", storages)


def rebuild_tensor(storage: str, key: str, shape: tuple[int, ...], *, offset: int = 0, stride: tuple[int, ...] | None = None) -> bytes:
    """The opcodes that make a tensor; `stride` is that of C order by default."""
    count, strides = 1, list[int]()
    for axis in reversed(shape):
        strides.insert(0, count)
        count *= axis
    identity = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + integer(count) + b"tQ"
    place = integer(offset) + sizes(shape) + sizes(tuple(strides) if stride is None else stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + place + b"\x89ccollections\nOrderedDict\n)RtR"


def write_archive(path: Path, data: bytes, storages: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        for key, content in storages.items():
            entry = zipfile.ZipInfo(f"archive/data/{key}")
            entry.compress_type = compression
            begin = archive.fp.tell() + 30 + len(entry.filename) + 4  # type: ignore[union-attr]
            padding = -begin % _ALIGNMENT
            entry.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
            archive.writestr(entry, content)
        archive.writestr("archive/version", b"3\n")
    return path


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def sizes(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"
