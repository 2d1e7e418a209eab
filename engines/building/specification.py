"""Which engines a bundle needs, how each is to be built, and the key it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from costroute_rt.engines.backends.engine import Backend
from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.backends.spec import AxisRange, BuildSpec
from costroute_rt.engines.building.example import PROMPT_TOKENS, axis_lengths
from costroute_rt.engines.building.shape import Size, size_of, split_name, with_size
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import ROUTER_GRAPHS, GraphSpec, step_graph
from costroute_rt.engines.machine import device
from costroute_rt.error import ConfigError, EngineError

_ROOM = 2.5
"""Bytes an engine may need for each byte of its weights: float16 becomes float32, and some layouts are padded."""


def graph_names(bundle: Bundle, graphs: Iterable[str] | None = None, size: Size | None = None, tool: Backend | None = None) -> list[str]:
    """The engines to build, by name: of `graphs`, or of what the pool needs; raises ConfigError for a graph or size there is not.

    tool: the backend that is to build what the pool needs, in any size. One that builds for ranges of lengths does best with a single
    length: engines that know the bundle's usual size then come after those that take any.
    """
    names = pool_graphs(bundle) if graphs is None else _known_graphs(bundle, graphs)
    if size is not None:
        return with_size(bundle, names, size)
    if graphs is None and tool is not None and tool.needs_ranges:
        names += with_size(bundle, names, (bundle.image.height, bundle.image.width))
    return list(dict.fromkeys(names))


def pool_graphs(bundle: Bundle) -> list[str]:
    """The graphs that the pool needs, as component/graph: text, each denoiser with a step graph per kind of guidance, decoders, router."""
    rows = [row_graphs(bundle, row) for row in bundle.pool]
    return list(dict.fromkeys([*(name for names in rows for name in names[:-1]), *(names[-1] for names in rows), *router_graphs(bundle)]))


def row_graphs(bundle: Bundle, row: Mapping[str, Any]) -> list[str]:
    """The graphs that one candidate of the pool needs, in the order in which they are called."""
    names = [f"{name}/encode" for name, component in bundle.components.items() if component.role == "text_encoder"]
    has_condition = "condition" in bundle.components[row["denoiser"]].graphs
    names += [f"{row['denoiser']}/condition"] if has_condition else []
    return [*names, f"{row['denoiser']}/{step_graph(row['guidance_scale'])}", f"{row['decoder']}/decode"]


def router_graphs(bundle: Bundle) -> list[str]:
    """The graphs that the bundle's router runs, as component/graph."""
    roles = {name: component.role for name, component in bundle.components.items() if component.role in ROUTER_GRAPHS}
    return [f"{name}/{ROUTER_GRAPHS[role]}" for name, role in roles.items()] if bundle.router is not None else []


def sized_spec(bundle: Bundle, name: str, spec: BuildSpec) -> BuildSpec:
    """The specification of the engine called `name`, which may ask for a size of its own (`base/step@512x768`).

    Lengths that the specification fixes already stay, such as of a batch; raises ConfigError for those of another size.
    """
    size = size_of(name)
    if size is None:
        return spec
    fixed, sized = dict(spec.shapes), axis_lengths(bundle, size=size)
    changing = {axis for axis, length in axis_lengths(bundle, size=(2 * size[0], 2 * size[1])).items() if sized[axis] != length}
    for axis in sorted(changing & fixed.keys()):
        if fixed[axis] != sized[axis]:
            raise ConfigError(f"the length of {axis}", fixed[axis], f"{sized[axis]}, which images of {size[0]}x{size[1]} need")
    return replace(spec, shapes=tuple(sorted((sized | fixed).items())))


def free_axes(bundle: Bundle) -> tuple[AxisRange, ...]:
    """The lengths that axes may have where they stay free: one or two images, of any size the bundle makes; one text or two.

    Beside them the tokens of a prompt by the router's own tokenizer.
    """
    usual, sizes = axis_lengths(bundle), list(bundle.image.sizes)
    image, factor = bundle.image, bundle.image.vae_scale_factor
    if image.any_size:
        sizes += [(factor, factor), (2 * image.height, 2 * image.width)]
    sides = [axis_lengths(bundle, size=size) for size in sizes]
    ranges = {axis: (min(each[axis] for each in sides), length, max(each[axis] for each in sides)) for axis, length in usual.items()}
    ranges |= {"batch": (1, 1, 2), "batch_size": (1, 1, 2), "rows": (1, 2, 2)}
    if bundle.router is not None and "max_length" in bundle.router:
        most = bundle.router["max_length"]
        ranges["prompt_tokens"] = (1, min(PROMPT_TOKENS, most), most)
    return tuple((axis, *lengths) for axis, lengths in sorted(ranges.items()))


def engine_key(bundle: Bundle, name: str, backend: Backend, spec: BuildSpec) -> EngineKey:
    """The key under which the store must hold the engine called `name`: component/graph, which may name a size (`base/step@512x768`)."""
    spec = sized_spec(bundle, name, spec)
    component, graph = split_name(name)
    path, weights = bundle.graph_path(component, graph), bundle.components[component].weights
    name, driver = backend.device(spec)
    return EngineKey(
        graph=f"{bundle.family}/{component}/{graph}",
        weights_sha256=bundle.files[weights].sha256 if weights else "none",
        graph_sha256=bundle.files[path].sha256,
        backend=backend.name,
        backend_version=backend.version,
        provider=spec.provider,
        precision=spec.precision,
        shapes=_describe_shapes(bundle.graphs[path], spec),
        options=backend.options(spec),
        device=name,
        driver=driver,
        os=device.os_name(),
    )


def locate(error: EngineError, bundle: Bundle, name: str, key: EngineKey) -> EngineError:
    """The error with what is known of the engine called `name`, where it does not know that itself."""
    return error.located(engine=f"{bundle.family}/{name}", setup=key.setup, bundle=bundle.root)


def room_needed(bundle: Bundle, name: str) -> int:
    """The most bytes that the engine of a graph may need."""
    component, graph = split_name(name)
    weights = bundle.components[component].weights
    stored = bundle.files[bundle.graph_path(component, graph)].bytes + (bundle.files[weights].bytes if weights else 0)
    return int(_ROOM * stored)


def _known_graphs(bundle: Bundle, names: Iterable[str]) -> list[str]:
    """Each name once; raises ConfigError for one that is no graph of the bundle."""
    known = [f"{name}/{graph}" for name, component in bundle.components.items() for graph in component.graphs]
    for name in names:
        if name not in known:
            raise ConfigError("graph", name, f"component/graph, one of {', '.join(known)}")
    return list(dict.fromkeys(names))


def _describe_shapes(graph: GraphSpec, spec: BuildSpec) -> str:
    """Fixed axes, and the ranges of those the graph has beside them."""
    fixed = dict(spec.shapes)
    free = {axis for port in graph.inputs.values() for axis in port.shape} - fixed.keys()
    ranges = [f"{axis}={least}..{usual}..{most}" for axis, least, usual, most in spec.ranges if axis in free]
    return " ".join([*(f"{axis}={length}" for axis, length in spec.shapes), *ranges])
