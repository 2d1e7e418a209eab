"""Finds the weights of a model that a LoRA changes; refuses one that does not fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from costroute_rt.engines.bundle.section import shorten
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.lora.family import guess_family
from costroute_rt.export.checkpoint.lora.lora import FAMILIES, Lora, LoraModule
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from costroute_rt.export.checkpoint.source.single_file.unet import original_name

_WEIGHT = ".weight"
_DENOISER = "unet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One weight of a model, and what a LoRA adds to it."""

    network: str
    parameter: str
    module: LoraModule


def find_targets(source: Source, lora: Lora) -> tuple[Target, ...]:
    """The weights that `lora` changes, in the order of its layers; raises BundleError if one of its layers does not fit the model."""
    layers = {name: _layers(network) for name, network in source.networks.items()}
    targets, unknown = [], []
    for module in lora.modules:
        parameter = layers.get(module.network, {}).get(module.layer)
        if parameter is None:
            unknown.append(module.name)
            continue
        _check_shape(source, lora, module, source.networks[module.network].weights[parameter])
        targets.append(Target(network=module.network, parameter=parameter, module=module))
    if unknown:
        known = f"{len(unknown)} of its {len(lora.modules)} layers"
        problem = f"the model {source.name} does not have {known}: {', '.join(map(shorten, unknown[:3]))}"
        raise _refusal(source, lora, problem)
    used = Counter((target.network, target.parameter) for target in targets)
    for (_, parameter), count in used.items():
        if count > 1:
            raise BundleError(lora.path, f"it changes {shorten(parameter)} {count} times, under different names", "download it again")
    return tuple(targets)


def _layers(network: Network) -> Mapping[str, str]:
    """Parameters by the names of their layers, with underscores for dots; a UNet's also in the original numbering of blocks."""
    found = {}
    for parameter, region in network.weights.items():
        if parameter.endswith(_WEIGHT) and len(region.shape) in (2, 4):
            layer = parameter.removesuffix(_WEIGHT)
            found[layer.replace(".", "_")] = parameter
            original = original_name(layer, network.config) if network.name == _DENOISER else None
            if original is not None:
                found.setdefault(original.replace(".", "_"), parameter)
    return found


def _check_shape(source: Source, lora: Lora, module: LoraModule, region: Region) -> None:
    """Raises BundleError unless up @ down has the shape of the weight; layers of 1x1 may be stored as matrices or as convolutions."""
    shape = region.shape[::-1] if region.is_transposed else region.shape
    inner = module.down.shape[1:] if module.mid is None else (module.down.shape[1], *module.mid.shape[2:])
    found = (module.up.shape[0], *inner)
    if _core(found) != _core(shape):
        problem = f"its layer {shorten(module.name)} is for a weight of the shape {found}, but the model's has {shape}"
        raise _refusal(source, lora, problem)


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the axes of height and width where both are 1."""
    return shape[:2] if math.prod(shape[2:]) == 1 else shape


def _refusal(source: Source, lora: Lora, problem: str) -> BundleError:
    """The error about a LoRA that does not fit; it names the families if they differ."""
    family, own = guess_family(lora), FAMILIES.get(source.family, source.family)
    if family in FAMILIES and family != source.family:
        return BundleError(lora.path, f"it is a LoRA for {FAMILIES[family]}, but the model {source.name} is {own}", f"use one for {own}")
    return BundleError(lora.path, problem, f"use a LoRA that was made for a model of this architecture ({own})")
