"""Writes regions of other files as one safetensors file, tensor by tensor: the memory it takes does not depend on the model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from costroute_rt.engines.bundle.safetensors_file import ITEM_BYTES
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Region
from costroute_rt.regular_file import open_regular

_BLOCK_BYTES = 8 << 20
_ALIGNMENT = 8


def write_tensors(path: Path, regions: Mapping[str, Region], on_bytes: Callable[[int], object] = lambda _: None) -> dict[str, Region]:
    """Write the regions to a new file at `path`; returns where each of them is there.

    A region that has several names is stored once. on_bytes: called with the number of bytes after each block; what it raises ends it.
    Raises BundleError for a region that cannot be read, OSError if the new file cannot be written.
    """
    order = dict(sorted(regions.items(), key=lambda item: -ITEM_BYTES[item[1].dtype]))  # so that every tensor is aligned
    first = {_place(region): name for name, region in reversed(order.items())}
    header, starts, end = dict[str, object](), dict[str, int](), 0
    for name in (name for name, region in order.items() if first[_place(region)] == name):
        region = regions[name]
        _check(region)
        header[name] = {"dtype": region.dtype, "shape": list(region.shape), "data_offsets": [end, end + region.length]}
        starts[name], end = end, end + region.length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with ExitStack() as files, open(path, "xb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        opened: dict[Path, BinaryIO] = {}
        for name in starts:
            region = regions[name]
            if region.file not in opened:
                opened[region.file] = files.enter_context(_open(region.file))
            for block in _blocks(opened[region.file], region):
                target.write(block)
                on_bytes(len(block))
    begin = 8 + len(text)
    return {name: replace(region, file=path, offset=begin + starts[first[_place(region)]]) for name, region in regions.items()}


def _place(region: Region) -> tuple[Path, int, int]:
    return region.file, region.offset, region.length


def _check(region: Region) -> None:
    if math.prod(region.shape) * ITEM_BYTES[region.dtype] != region.length:
        problem = f"a tensor of {region.length} bytes cannot have the shape {list(region.shape)} in {region.dtype}"
        raise BundleError(region.file, problem, "download the checkpoint again")


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise BundleError(path, f"it cannot be read: {error.strerror or error}", "check the file") from error


def _blocks(source: BinaryIO, region: Region) -> Iterator[bytes]:
    left = region.length
    while left:
        try:
            source.seek(region.offset + region.length - left)
            block = source.read(min(_BLOCK_BYTES, left))
        except OSError as error:
            raise BundleError(region.file, f"it cannot be read: {error.strerror or error}", "check the disk") from error
        if not block:
            raise BundleError(region.file, "it ends before its last tensor", "download the checkpoint again")
        left -= len(block)
        yield block
