"""The tensors of a file that torch.save wrote, by name and position: a zip archive whose storages are not compressed.

The archive holds `NAME/data.pkl` and a file `NAME/data/KEY` for each storage (torch/serialization.py, `_save`).
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Region
from costroute_rt.export.checkpoint.source.torch_pickle import MOST_BYTES, Tensor, read_pickle
from costroute_rt.export.checkpoint.weight_file import DOWNLOAD_AGAIN
from costroute_rt.regular_file import open_regular

_MOST_TENSORS = 100_000
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature and lengths of name and extra field (PKWARE's APPNOTE, 4.3.7)."""
_ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
"""Bytes of one number; all other dtypes have one."""
_SAVE_AGAIN = "save its tensors as safetensors: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"


def read_torch_file(path: Path) -> tuple[dict[str, Region], dict[str, str]]:
    """The tensors of a state dict that torch saved, and what else it tells (`global_step`); raises BundleError. No code in it runs."""
    try:
        with open_regular(path) as file:
            return _read_archive(path.resolve(), file)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError, OverflowError) as error:
        raise BundleError(path, f"it is incomplete, or it does not hold torch weights: {error}", DOWNLOAD_AGAIN) from error
    except _NoWeights as error:
        raise BundleError(path, str(error), "use a file with the weights of a whole model") from error
    except ValueError as error:
        raise BundleError(path, str(error), _SAVE_AGAIN) from error
    except OSError as error:
        raise BundleError(path, f"it cannot be read: {error.strerror or error}", DOWNLOAD_AGAIN) from error


class _NoWeights(ValueError):
    """An intact file that holds something else."""


def refuse_old_format(path: Path) -> BundleError:
    """The error for a file in the format of torch before version 1.6, whose numbers have no position of their own."""
    return BundleError(path, "it is in torch's format before version 1.6, or a pickle of something else", _SAVE_AGAIN)


class _Bounded:
    """A file of which zipfile reads a bounded part at once: its own limits are those of the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size if 0 <= size <= MOST_BYTES else MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"a part of it is larger than {MOST_BYTES >> 20} MiB")
        return data

    def seekable(self) -> bool:
        return True


def _read_archive(path: Path, file: BinaryIO) -> tuple[dict[str, Region], dict[str, str]]:
    with zipfile.ZipFile(_Bounded(file)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise zipfile.BadZipFile("it has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in entries and _read(archive, entries[f"{folder}byteorder"]) != b"little":
            raise ValueError("its numbers are big-endian")
        tensors, notes = _state_dict(read_pickle(_read(archive, entries[pickles[0]])))
    places = {
        key: _place(file, entries.get(f"{folder}data/{key}"), key) for key in dict.fromkeys(each.storage.key for each in tensors.values())
    }
    return {name: _region(path, tensor, *places[tensor.storage.key], name) for name, tensor in tensors.items()}, notes


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"its pickle is larger than {MOST_BYTES >> 20} MiB")
    return data


def _state_dict(value: Any) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    """The tensors in a state dict, or in the one inside a training state."""
    if type(value) is not dict:
        raise _NoWeights("it holds no state dict of tensors")
    inner = value.get("state_dict")
    tensors = {name: each for name, each in (inner if type(inner) is dict else value).items() if isinstance(each, Tensor)}
    if not tensors or len(tensors) > _MOST_TENSORS:
        what = "it is a textual inversion" if "string_to_param" in value else "it holds no state dict of tensors"
        raise _NoWeights(what)
    step = value.get("global_step")
    return tensors, {"global_step": str(step)} if type(step) is int and abs(step) < 1 << 63 else {}


def _place(file: BinaryIO, entry: zipfile.ZipInfo | None, key: str) -> tuple[int, int]:
    """First byte and length of a storage in the file."""
    if entry is None:
        raise zipfile.BadZipFile(f"the storage {key[:20]} is missing")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its storages are compressed")
    file.seek(entry.header_offset)
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    begin = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if signature != b"PK\x03\x04" or begin + entry.file_size > os.fstat(file.fileno()).st_size:
        raise zipfile.BadZipFile(f"the storage {key[:20]} is not where the list of files says")
    return begin, entry.file_size


def _region(path: Path, tensor: Tensor, begin: int, stored: int, name: str) -> Region:
    item = _ITEM_BYTES.get(tensor.dtype, 1)
    offset, length = tensor.offset * item, math.prod(tensor.shape) * item
    dtype, shape, is_transposed = tensor.dtype, tensor.shape, False
    if not _is_contiguous(shape, tensor.stride):
        is_transposed = len(shape) == 2 and _is_contiguous(shape[::-1], tensor.stride[::-1])
        shape = shape[::-1] if is_transposed else shape
        dtype = dtype if is_transposed else f"{dtype} with gaps"
        length = length if is_transposed else 0
    if offset + length > stored:
        raise ValueError(f"its tensor {name[:80]} is larger than its storage")
    return Region(file=path, offset=begin + offset, length=length, dtype=dtype, shape=shape, is_transposed=is_transposed)


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether the numbers lie in C order without gaps."""
    expected = 1
    for axis, step in zip(shape[::-1], stride[::-1], strict=True):
        if axis != 1 and step != expected:
            return False
        expected *= axis
    return True
