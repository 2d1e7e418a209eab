"""Engines that are the same: one network with the same weights in several bundles of a pool exists once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.lookup import engine_key
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName


def find_twins(bundles: Mapping[str, Bundle], names: Iterable[str], setup: Setup) -> dict[str, str]:
    """For engines with an equal one earlier in `names`: the name of that one.

    Equal engines have the same key. Those of text encoders must also get the same tokens, because texts are encoded once for all.
    """
    first: dict[Hashable, str] = {}
    found = {}
    for name in names:
        bundle = bundles[EngineName.parse(name).family]
        same = first.setdefault((engine_key(bundle, name, setup).digest, _tokens(bundle, name)), name)
        if same != name:
            found[name] = same
    return found


def _tokens(bundle: Bundle, name: str) -> Hashable:
    """What decides the tokens of a text encoder; None for other networks."""
    component = bundle.components[EngineName.parse(name).component]
    if component.tokenizer is None:
        return None
    spec = bundle.tokenizers[component.tokenizer]
    return bundle.files[spec.file].sha256, component.tokenizer, replace(spec, file="")
