"""Fuses LoRAs into the weights of a model: W + scale * alpha / rank * up @ down (Hu et al. 2021), tensor by tensor.

Only the changed weights are written, to one file per network, in the dtype they had; all others stay in the user's own files.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.finite import has_broken_number
from costroute_rt.engines.bundle.safetensors_file import ITEM_BYTES
from costroute_rt.error import BundleError, CancelledError, ConfigError
from costroute_rt.export.checkpoint.lora.lora import Lora, LoraModule
from costroute_rt.export.checkpoint.lora.read_lora import read_lora
from costroute_rt.export.checkpoint.lora.target import find_targets
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from costroute_rt.export.checkpoint.tensor.keyed_file import describe_weights, move_weights, write_once
from costroute_rt.export.checkpoint.tensor.number import READABLE, from_float32, open_weights, read_bytes, read_tensor, to_float32
from costroute_rt.export.checkpoint.tensor.writer import NewTensor

_FORMAT = 1
"""Of the key; a change of what is computed or written changes it."""
_BLOCK_VALUES = 4 << 20
"""Numbers that are computed at once."""

Progress = Callable[[str, int, int], None]
"""Called before each weight with its name, its index and the number of weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one LoRA adds to one weight."""

    path: Path
    module: LoraModule
    factor: float
    """scale * alpha / rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """LoRAs that were checked against a model; nothing is computed yet."""

    loras: tuple[tuple[Lora, float], ...]
    """With their scales, none of which is 0."""
    changes: Mapping[str, Mapping[str, tuple[Change, ...]]]
    """By network and parameter."""
    keys: Mapping[str, str]
    """By network: what the fused weights are computed from, as a hash. A network whose key has changed is computed again."""

    def record(self) -> list[dict[str, Any]]:
        """The LoRAs as data for a manifest: name, hash of the file, scale, and the networks that each changes."""
        rows = []
        for lora, scale in self.loras:
            networks = sorted({module.network for module in lora.modules})
            rows.append({"name": lora.name, "sha256": lora.sha256, "scale": scale, "networks": networks})
        return rows

    def output_bytes(self, source: Source) -> int:
        """How many bytes the changed weights take."""
        return sum(source.networks[name].weights[parameter].length for name, own in self.changes.items() for parameter in own)


def plan_fusion(source: Source, loras: Sequence[tuple[Lora | Path, float]]) -> Fusion:
    """Reads and checks LoRAs for a model; raises BundleError for one that cannot be used, ConfigError for a scale that is no number.

    LoRAs of scale 0 are checked and then left out.
    """
    read: list[tuple[Lora, float]] = []
    changes: dict[str, dict[str, list[Change]]] = defaultdict(lambda: defaultdict(list))
    for given, scale in loras:
        if not math.isfinite(scale):
            raise ConfigError("the scale of a LoRA", scale, "a finite number")
        lora = given if isinstance(given, Lora) else read_lora(given)
        targets = find_targets(source, lora)
        if scale == 0:
            continue
        read.append((lora, float(scale)))
        for target in targets:
            change = Change(path=lora.path, module=target.module, factor=scale * target.module.scaling)
            changes[target.network][target.parameter].append(change)
    frozen = {name: {parameter: tuple(own[parameter]) for parameter in sorted(own)} for name, own in sorted(changes.items())}
    keys = {name: _key(source.networks[name], frozen[name], read) for name in frozen}
    return Fusion(loras=tuple(read), changes=frozen, keys=keys)


def fuse_loras(
    source: Source,
    loras: Sequence[tuple[Lora | Path, float]] | Fusion,
    folder: Path,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Source:
    """The model with LoRAs fused into it: its changed weights lie in `folder`, in a file NETWORK.lora.safetensors per network.

    loras: files, or what `read_lora` returned, with their scales; or what `plan_fusion` returned.
    folder: made where it is missing. A complete file in it that was computed from the same weights, LoRAs and scales is kept; others are
        replaced, and those of networks that no longer change are left alone.
    cancel: an event to set from another thread.
    Raises as `plan_fusion`; BundleError for a sum that the weight's dtype cannot hold; OutputError; CancelledError.
    """
    fusion = loras if isinstance(loras, Fusion) else plan_fusion(source, loras)
    networks, done, total = dict(source.networks), 0, sum(map(len, fusion.changes.values()))
    for name, changes in fusion.changes.items():
        path, network = Path(folder) / f"{name}.lora.safetensors", networks[name]
        if path.resolve() in network.files():
            raise ConfigError("folder", str(folder), f"one that {source.name} is not read from: give all LoRAs at once, or another folder")
        begin = partial(_begin, progress, cancel, name, {parameter: done + at for at, parameter in enumerate(changes)}, total)
        write_once(path, fusion.keys[name], _new_tensors(network, changes), begin)
        networks[name] = move_weights(network, path)
        done += len(changes)
    return dataclasses.replace(source, networks=networks)


def _begin(
    progress: Progress | None, cancel: threading.Event | None, network: str, index: Mapping[str, int], total: int, parameter: str
) -> None:
    if cancel is not None and cancel.is_set():
        raise CancelledError("fusing LoRAs was cancelled")
    if progress is not None:
        progress(f"{network} {parameter}", index[parameter], total)


def _new_tensors(network: Network, changes: Mapping[str, tuple[Change, ...]]) -> dict[str, NewTensor]:
    tensors = {}
    for parameter, own in changes.items():
        region = network.weights[parameter]
        tensors[parameter] = NewTensor(dtype=region.dtype, shape=region.shape, blocks=partial(_fused_blocks, parameter, region, own))
    return tensors


def _fused_blocks(parameter: str, region: Region, changes: Sequence[Change]) -> Iterator[npt.NDArray[Any]]:
    """The rows of a fused weight, as stored, in blocks; raises BundleError for a sum that is not finite in its dtype."""
    factors = [_factors(change, is_transposed=region.is_transposed) for change in changes]
    rows, columns = region.shape[0], math.prod(region.shape[1:])
    step = max(1, _BLOCK_VALUES // columns)
    row_bytes = columns * ITEM_BYTES[region.dtype]
    with open_weights(region.file) as file:
        for start in range(0, rows, step):
            count = min(step, rows - start)
            data = read_bytes(file, region.file, region.offset + start * row_bytes, count * row_bytes)
            values = to_float32(data, region.dtype).reshape(count, columns)
            with np.errstate(over="ignore", invalid="ignore"):
                for left, right in factors:
                    values += left[start : start + count] @ right
            stored: Any = from_float32(values, region.dtype)
            if has_broken_number(memoryview(stored).cast("B"), READABLE[region.dtype]):
                names = ", ".join(dict.fromkeys(change.path.name for change in changes))
                problem = f"with {names} added, its {parameter} is not finite in {region.dtype}"
                raise BundleError(region.file, problem, "use a smaller scale, or the model in float32 or bfloat16")
            yield stored


def _factors(change: Change, *, is_transposed: bool) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """float32[rows, rank] and float32[rank, columns], whose product is added to the weight as it is stored."""
    module = change.module
    down, up = read_tensor(change.path, module.down), read_tensor(change.path, module.up)
    with np.errstate(over="ignore"):
        up = up.reshape(module.up.shape[0], module.rank) * np.float32(change.factor)
    down = down.reshape(module.rank, -1)
    if module.mid is not None:  # a kernel [rank, rank, height, width] between the 1x1 convolutions `down` and `up`
        mid = read_tensor(change.path, module.mid)
        down = np.einsum("rskl,si->rikl", mid, down).reshape(module.rank, -1)
    return (np.ascontiguousarray(down.T), np.ascontiguousarray(up.T)) if is_transposed else (up, down)


def _key(network: Network, changes: Mapping[str, Any], loras: Sequence[tuple[Lora, float]]) -> str:
    """Hash of the LoRAs, their scales and the weights that they change; files are known by path, size and time of their last change."""
    used = [[lora.sha256, scale] for lora, scale in loras if any(module.network == network.name for module in lora.modules)]
    weights = describe_weights(network, changes)
    return sha256(json.dumps([_FORMAT, used, weights]).encode()).hexdigest()
