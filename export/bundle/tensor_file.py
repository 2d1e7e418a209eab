"""Copies regions of other files into one safetensors file, block by block: the memory it takes does not depend on the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.safetensors_file import ITEM_BYTES, read_stored_tensors
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Region
from costroute_rt.export.checkpoint.tensor.writer import NewTensor, write_tensors
from costroute_rt.regular_file import open_regular

_BLOCK_BYTES = 8 << 20
_Place = tuple[Path, int, int]


def copy_regions(path: Path, regions: Mapping[str, Region], on_bytes: Callable[[int], object] = lambda _: None) -> dict[str, Region]:
    """Write the regions to a new file at `path`; returns where each of them is there.

    A region that has several names is stored once. on_bytes: called with the number of bytes before each block; what it raises ends it.
    Raises BundleError for a region that cannot be read, OutputError if the new file cannot be written.
    """
    first: dict[_Place, str] = {}
    for name, region in regions.items():
        _check(region)
        first.setdefault(_place(region), name)
    tensors = {
        name: NewTensor(dtype=regions[name].dtype, shape=regions[name].shape, blocks=partial(_blocks, regions[name], on_bytes))
        for name in first.values()
    }
    write_tensors(path, tensors)
    stored = read_stored_tensors(path)
    return {name: replace(region, file=path, offset=stored[first[_place(region)]].offset) for name, region in regions.items()}


def _place(region: Region) -> _Place:
    return region.file, region.offset, region.length


def _check(region: Region) -> None:
    if math.prod(region.shape) * ITEM_BYTES[region.dtype] != region.length:
        problem = f"a tensor of {region.length} bytes cannot have the shape {list(region.shape)} in {region.dtype}"
        raise BundleError(region.file, problem, "download the checkpoint again")


def _blocks(region: Region, on_bytes: Callable[[int], object]) -> Iterator[npt.NDArray[np.uint8]]:
    """The bytes of a region; raises BundleError."""
    for start in range(0, region.length, _BLOCK_BYTES):
        count = min(_BLOCK_BYTES, region.length - start)
        on_bytes(count)
        yield np.frombuffer(_read(region.file, region.offset + start, count), np.uint8)


def _read(path: Path, offset: int, count: int) -> bytes:
    try:
        with open_regular(path) as file:
            file.seek(offset)
            data = file.read(count)
    except OSError as error:
        raise BundleError(path, f"it cannot be read: {error.strerror or error}", "check the file and the disk") from error
    if len(data) < count:
        raise BundleError(path, "it ends before its last tensor", "download the checkpoint again")
    return data
