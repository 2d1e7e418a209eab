"""Which engines the candidates of a bundle call: the one place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import ROUTER_GRAPHS, step_graph
from costroute_rt.engines.bundle.name import EngineName


def engine_names(bundle: Bundle) -> list[str]:
    """Every engine that the pool and the router need, once: of text and denoisers, then decoders, then the router's."""
    rows = [_own_names(bundle, row) for row in bundle.pool]
    steps, decoders = [name for names in rows for name in names[:-1]], [names[-1] for names in rows]
    return list(dict.fromkeys([*steps, *decoders, *_router_names(bundle)]))


def candidate_names(bundle: Bundle, row: Mapping[str, Any]) -> list[str]:
    """The engines that one candidate of the pool needs, in the order in which they are called, the router's first.

    row: of `Bundle.pool`.
    """
    return [*_router_names(bundle), *_own_names(bundle, row)]


def image_calls(bundle: Bundle) -> dict[str, list[tuple[str, int]]]:
    """By candidate, the engines called for one image and how often: for each choice of engines, the candidate with the fewest steps."""
    found: dict[str, list[tuple[str, int]]] = {}
    choices = set()
    for row in sorted(bundle.pool, key=lambda row: int(row["num_inference_steps"])):
        names = candidate_names(bundle, row)
        if tuple(names) not in choices:
            choices.add(tuple(names))
            steps = int(row["num_inference_steps"])
            found[str(row["name"])] = [(name, steps if name == names[-2] else 1) for name in names]
    return found


def _router_names(bundle: Bundle) -> list[str]:
    """The engines that the bundle's router runs."""
    if bundle.router is None:
        return []
    roles = {name: component.role for name, component in bundle.components.items() if component.role in ROUTER_GRAPHS}
    return [str(EngineName(bundle.family, name, ROUTER_GRAPHS[role])) for name, role in roles.items()]


def _own_names(bundle: Bundle, row: Mapping[str, Any]) -> list[str]:
    calls = [(name, "encode") for name, component in bundle.components.items() if component.role == "text_encoder"]
    calls += [(row["denoiser"], "condition")] if "condition" in bundle.components[row["denoiser"]].graphs else []
    calls += [(row["denoiser"], step_graph(row["guidance_scale"])), (row["decoder"], "decode")]
    return [str(EngineName(bundle.family, component, graph)) for component, graph in calls]
