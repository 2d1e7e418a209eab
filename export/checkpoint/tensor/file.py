"""Small safetensors files of others: complete, in readable numbers, none of which is NaN or infinite."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from costroute_rt.engines.bundle.finite import has_broken_number
from costroute_rt.engines.bundle.safetensors_file import StoredTensor, read_stored_tensors
from costroute_rt.engines.bundle.section import shorten
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.tensor.number import READABLE, open_weights, read_blocks
from costroute_rt.export.checkpoint.weight_file import check_content

DOWNLOAD_AGAIN = "download it again"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt")


def read_tensors(path: Path, what: str) -> dict[str, StoredTensor]:
    """The tensors of a small file of weights; raises BundleError for pickles, incomplete files, and numbers that cannot be read.

    what: such as `LoRA`, for messages.
    """
    if path.is_dir():
        raise BundleError(path, "it is a folder", f"name the .safetensors file of the {what} in it")
    if not path.exists():
        raise BundleError(path, "it does not exist", "check the path")
    check_content(path)
    if path.suffix.lower() in _PICKLES:
        problem = f"a {what} in torch's format can run code when it is read, so it is refused"
        raise BundleError(path, problem, "use a .safetensors file of it, or convert it with a program you trust")
    try:
        tensors = read_stored_tensors(path)
    except BundleError as error:
        problem = error.problem.removeprefix("it is not a safetensors file: ")
        raise BundleError(path, f"it is incomplete, or no safetensors file: {problem}", DOWNLOAD_AGAIN) from error
    if not tensors:
        raise BundleError(path, "it holds no tensors", DOWNLOAD_AGAIN)
    other = sorted({tensor.dtype for tensor in tensors.values()} - READABLE.keys())
    if other:
        problem = f"its numbers are {', '.join(map(shorten, other[:3]))}"
        raise BundleError(path, problem, "use one in float16, bfloat16 or float32")
    return tensors


def check_numbers(path: Path, tensors: Mapping[str, StoredTensor]) -> str:
    """The file's SHA-256; raises BundleError for NaN and infinity. The file is read once, in small blocks."""
    digest, end = hashlib.sha256(), 0
    with open_weights(path) as file:
        for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
            for data in read_blocks(file, path, end, tensor.offset - end):
                digest.update(data)
            for data in read_blocks(file, path, tensor.offset, tensor.length):
                digest.update(data)
                if has_broken_number(data, READABLE[tensor.dtype]):
                    raise BundleError(path, f"its tensor {shorten(tensor.name)} holds NaN or infinity", "use another version of it")
            end = max(end, tensor.offset + tensor.length)
    return digest.hexdigest()
