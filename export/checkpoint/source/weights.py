"""The tensors of weight files, by name and position. Headers are read, weights are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from costroute_rt.engines.bundle.safetensors_file import ITEM_BYTES, read_safetensors
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Region
from costroute_rt.export.checkpoint.source.parameter.layer import Parameters
from costroute_rt.export.checkpoint.source.torch_file import read_torch_file, refuse_old_format
from costroute_rt.export.checkpoint.weight_file import DOWNLOAD_AGAIN, check_content

_ZIP, _PICKLE = b"PK\x03\x04", (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """What a weight file holds."""

    tensors: Mapping[str, Region]
    """By the names in the file; also those whose dtype cannot be used."""
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: Path) -> StoredWeights:
    """The tensors of a file of safetensors or torch, as its content says; raises BundleError that names what the file is instead."""
    head = check_content(path)
    if not is_pickle(head):
        return _read_safetensors(path)
    if not head.startswith(_ZIP):
        raise refuse_old_format(path)
    tensors, metadata = read_torch_file(path)
    return StoredWeights(tensors=tensors, metadata=metadata)


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so is one of torch's; a header of safetensors of 640 bytes begins like a pickle, but for its brace."""
    return head.startswith((_ZIP, *_PICKLE)) and head[8:9] != b"{"


def _read_safetensors(path: Path) -> StoredWeights:
    try:
        tensors, metadata = read_safetensors(path)
    except BundleError as error:
        raise BundleError(path, f"it is incomplete or damaged: {error.problem.removeprefix('it is ')}", DOWNLOAD_AGAIN) from error
    file = path.resolve()
    regions = {
        name: Region(file=file, offset=each.offset, length=each.length, dtype=each.dtype, shape=each.shape)
        for name, each in tensors.items()
    }
    return StoredWeights(tensors=regions, metadata=metadata)


def read_all_weights(paths: Iterable[Path]) -> dict[str, Region]:
    """The tensors of all files of one network."""
    found: dict[str, Region] = {}
    for path in paths:
        found |= read_weights(path).tensors
    return found


def choose_weights(found: Mapping[str, Region], wanted: Parameters, what: str, path: Path) -> dict[str, Region]:
    """The region of each wanted parameter; raises BundleError if one is missing, or has another shape or an unusable dtype.

    what: the network, for messages. path: the folder or file that has its weights.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        problem = f"{len(missing)} of the {len(wanted)} parameters of its {what} are missing, such as {missing[0]}"
        raise BundleError(path, problem, DOWNLOAD_AGAIN)
    for name, shape in wanted.items():
        _check_region(found[name], shape, f"{what}'s {name}", path)
    return {name: found[name] for name in wanted}


def _check_region(region: Region, shape: tuple[int, ...], what: str, path: Path) -> None:
    if region.dtype not in ITEM_BYTES:
        problem = f"its {what} is stored as {region.dtype}"
        raise BundleError(path, problem, "use the checkpoint in float16, bfloat16 or float32")
    stored = region.shape[::-1] if region.is_transposed else region.shape
    if _without_ones(stored) != _without_ones(shape):
        problem = f"its {what} has the shape {stored}, but the configuration needs {shape}"
        raise BundleError(path, problem, "use weights and configuration of the same model")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in shape if axis != 1)
