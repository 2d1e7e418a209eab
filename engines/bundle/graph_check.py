"""The check of a graph in a bundle: it reads nothing but its component's weight files, and its weights are finite."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from costroute_rt.engines.bundle.finite import has_broken_number
from costroute_rt.engines.bundle.manifest_reader import check_path
from costroute_rt.engines.bundle.onnx_scan import ExternalTensor, read_external_tensors
from costroute_rt.engines.bundle.section import Fail
from costroute_rt.regular_file import open_regular

_MOST_USES = 4
"""How many times the weights may be used in one graph, by bytes: more would fill the memory from a small file."""
_BLOCK_BYTES = 4 << 20


Region = tuple[str, int, int, str]
"""A part of a weight file: the file in the bundle, offset and length in bytes, dtype."""


def check_graph(
    name: str,
    data: bytes,
    weights: Mapping[str, int],
    own_bytes: int,
    folder: Path,
    fail_at: Callable[[str], Fail],
    finite: set[Region] | None,
) -> None:
    """Check the content of a graph; calls what `fail_at` returns with what is wrong. Raises OSError where the weights cannot be read.

    name: of the graph, in the bundle. weights: the weight files that it may use, with their sizes in bytes.
    own_bytes: size of the part of them that belongs to the components of the graph.
    folder: the weights are read below it. fail_at: reports problems of a file of the bundle.
    finite: parts of weight files that are known to be finite; gets those of this graph. Without it, weights are not read.
    """
    fail = fail_at(name)
    try:
        tensors = read_external_tensors(data)
    except ValueError as error:
        fail(f"it is not a usable ONNX file: {error}")
    files = {location: _target(name, location, weights, fail) for location in {each.location for each in tensors}}
    for each in tensors:
        if each.offset + each.length > weights[files[each.location]]:
            fail(f"its external data in {each.location} end after the end of that file")
    if sum(each.length for each in tensors) > _MOST_USES * min(own_bytes, sum(weights[file] for file in set(files.values()))):
        fail(f"it uses its weights more than {_MOST_USES} times")
    if finite is None:
        return
    with ExitStack() as stack:
        opened = {location: stack.enter_context(open_regular(folder / file)) for location, file in files.items()}
        for each in tensors:
            region = (files[each.location], each.offset, each.length, each.dtype)
            if region not in finite and _is_broken(opened[each.location], each):
                fail_at(files[each.location])(f"its {each.dtype} numbers from byte {each.offset} are NaN or infinite")
            finite.add(region)


def _target(name: str, location: str, weights: Mapping[str, int], fail: Fail) -> str:
    check_path(location, fail, "its external data")
    target = os.path.normpath(os.path.join(os.path.dirname(name), location)).replace(os.sep, "/")
    if target not in weights:
        fail(f"its external data is {location}, which is not among its component's weight files")
    return target


def _is_broken(file: BinaryIO, tensor: ExternalTensor) -> bool:
    file.seek(tensor.offset)
    for start in range(0, tensor.length, _BLOCK_BYTES):
        if has_broken_number(file.read(min(_BLOCK_BYTES, tensor.length - start)), tensor.dtype):
            return True
    return False
