"""Reads a LoRA file: which layers it changes, and whether all of it can be used. No number is kept in memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.safetensors_file import StoredTensor
from costroute_rt.engines.bundle.section import shorten
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.lora.family import find_family
from costroute_rt.export.checkpoint.lora.layout import Key, find_method, find_other_family, is_checkpoint, is_embedding, read_key
from costroute_rt.export.checkpoint.lora.lora import FAMILIES, Lora, LoraModule
from costroute_rt.export.checkpoint.lora.scaling import find_scaling, read_settings
from costroute_rt.export.checkpoint.tensor.file import DOWNLOAD_AGAIN, check_numbers, read_tensors
from costroute_rt.export.checkpoint.tensor.header import read_metadata
from costroute_rt.export.checkpoint.tensor.number import read_tensor

_PLAIN = "use a plain LoRA of it, or a checkpoint that it was merged into"


def read_lora(path: Path) -> Lora:
    """The LoRA in a safetensors file, in kohya's layout, diffusers' or peft's; raises BundleError for anything else.

    Names, shapes and settings are checked first; then the file is read once, for its hash and for numbers that are not finite.
    """
    path = Path(path)
    tensors = read_tensors(path, "LoRA")
    keys, metadata = list(tensors), read_metadata(path)
    _check_kind(path, keys, metadata)
    parts: dict[tuple[str, str], dict[str, StoredTensor]] = defaultdict(dict)
    names: dict[tuple[str, str], Key] = {}
    for key, tensor in tensors.items():
        if (read := read_key(key)) is not None:
            if read.part in parts[read.network, read.layer]:
                raise BundleError(path, f"it has {shorten(key)} twice, under two names", DOWNLOAD_AGAIN)
            parts[read.network, read.layer][read.part] = tensor
            names[read.network, read.layer] = read
    settings = read_settings(path, metadata)
    modules = tuple(_make_module(path, names[layer], parts[layer], settings) for layer in sorted(parts))
    return Lora(path=path, sha256=check_numbers(path, tensors), modules=modules, metadata=metadata)


def _check_kind(path: Path, keys: Sequence[str], metadata: Mapping[str, str]) -> None:
    """Raises BundleError for what is no plain LoRA, or one for another family."""
    if method := find_method(keys):
        raise BundleError(path, f"it is {method}, not a plain LoRA: it cannot be added to the weights", _PLAIN)
    if is_embedding(keys):
        raise BundleError(path, "it is a textual inversion", "add it as one")
    if is_checkpoint(keys):
        raise BundleError(path, "it is a checkpoint or a part of one, not a LoRA", "export it as a model of its own")
    family = find_other_family(keys)
    named = find_family(metadata)
    if family or (named and named not in FAMILIES):
        problem = f"it is a LoRA for {named if named and named not in FAMILIES else family}"
        raise BundleError(path, problem, f"use one for {', '.join(list(FAMILIES.values())[:-1])} or {FAMILIES['sdxl']}")
    unknown = [key for key in keys if read_key(key) is None]
    if unknown:
        problem = f"{len(unknown)} of its {len(keys)} tensors are of no known LoRA layout: {', '.join(map(shorten, unknown[:3]))}"
        raise BundleError(path, problem, "use a LoRA in kohya's, diffusers' or peft's layout")


def _make_module(path: Path, key: Key, parts: Mapping[str, StoredTensor], settings: Mapping[str, Any]) -> LoraModule:
    """One layer's change; raises BundleError where a part is missing or the parts do not fit each other."""
    missing = [part for part in ("down", "up") if part not in parts]
    if missing:
        raise BundleError(path, f"its layer {shorten(key.name)} has no {missing[0]} part", DOWNLOAD_AGAIN)
    down, up, mid = parts["down"], parts["up"], parts.get("mid")
    rank = down.shape[0] if down.shape else 0
    is_kernel = mid is None or (len(mid.shape) == 4 and mid.shape[:2] == (rank, rank) and math.prod(down.shape) == rank * down.shape[1])
    shapes = [tensor.shape for tensor in (down, up, mid) if tensor is not None]
    if rank < 1 or min(map(len, shapes)) < 2 or 0 in map(math.prod, shapes) or math.prod(up.shape[1:]) != rank or not is_kernel:
        problem = f"the parts of its layer {shorten(key.name)} do not fit each other: their shapes are {', '.join(map(str, shapes))}"
        raise BundleError(path, problem, DOWNLOAD_AGAIN)
    if (alpha := parts.get("alpha")) is None:
        scaling = find_scaling(path, settings, key.network, key.name, rank)
    elif math.prod(alpha.shape) == 1:
        scaling = float(read_tensor(path, alpha).reshape(())) / rank
    else:
        raise BundleError(path, f"its {shorten(alpha.name)} has the shape {alpha.shape}: expected one number", DOWNLOAD_AGAIN)
    return LoraModule(name=key.name, network=key.network, layer=key.layer, down=down, up=up, mid=mid, scaling=scaling)
