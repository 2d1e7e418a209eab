"""Files of weights that are computed from others: kept while the key, which stands for all that they are computed from, stays the same."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.export.checkpoint.source.network import Network
from costroute_rt.export.checkpoint.tensor.number import open_weights
from costroute_rt.export.checkpoint.tensor.writer import NewTensor, output_errors, write_tensors
from costroute_rt.regular_file import read_regular

_MOST_KEY_BYTES = 1 << 10


def write_once(path: Path, key: str, tensors: Mapping[str, NewTensor], begin: Callable[[str], None] = lambda _: None) -> bool:
    """Writes the tensors (see `write_tensors`) unless a complete file with this key exists; returns whether it wrote.

    The key lies beside the file, with its size and the time of its last change. It is removed first and written last, so that it never
    describes another file.
    """
    beside = path.with_suffix(".key")
    if _is_current(path, beside, key):
        return False
    with output_errors(beside):
        beside.unlink(missing_ok=True)
    write_tensors(path, tensors, begin)
    with output_errors(beside):
        beside.write_text(_stamp(path, key), encoding="ascii")
    return True


def move_weights(network: Network, path: Path) -> Network:
    """The network with every weight that the file at `path` holds read from there."""
    weights, file = dict(network.weights), path.resolve()
    for name, tensor in read_stored_tensors(path).items():
        weights[name] = dataclasses.replace(weights[name], file=file, offset=tensor.offset, length=tensor.length, shape=tensor.shape)
    return dataclasses.replace(network, weights=weights)


def describe_weights(network: Network, names: Iterable[str]) -> list[Any]:
    """What these weights of a network are, as data for a key; their files are known by path, size and time of the last change."""
    regions = [network.weights[name] for name in names]
    files = []
    for file in sorted({region.file for region in regions}):
        with open_weights(file) as opened:
            state = os.fstat(opened.fileno())
        files.append([str(file), state.st_size, state.st_mtime_ns])
    own = [
        [name, str(region.file), region.offset, region.dtype, region.shape, region.is_transposed]
        for name, region in zip(names, regions, strict=True)
    ]
    return [own, files]


def _is_current(path: Path, beside: Path, key: str) -> bool:
    try:
        return read_regular(beside, _MOST_KEY_BYTES) == _stamp(path, key).encode()
    except OSError:
        return False


def _stamp(path: Path, key: str) -> str:
    state = path.stat()
    return f"{key} {state.st_size} {state.st_mtime_ns}\n"
