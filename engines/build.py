"""From a bundle's graphs to engines in the store, each checked before it is kept; and opening them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from costroute_rt.engines import device
from costroute_rt.engines.bundle import Bundle
from costroute_rt.engines.bundle_manifest import ROUTER_GRAPHS, TensorSpec, step_graph
from costroute_rt.engines.durable import check_room, is_full
from costroute_rt.engines.engine import Backend, BuildSpec, Engine, EngineKey, FieldDifference, get_backend
from costroute_rt.engines.error import BundleError, ConfigError, EngineError, StoreFullError
from costroute_rt.engines.example import axis_lengths, example_feeds
from costroute_rt.engines.gate import GateResult, check_engine, unusable_output
from costroute_rt.engines.store import BUILD, Store, StoredEngine

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], object]
"""Called as progress(graph, index, total) before each graph that is really worked on; what it raises stops the work."""

_UNWRITTEN = "Failed to write"
"""How a backend says that a file could not be written, where a quota or limit is met that free space does not show."""
_ROOM = 2.5
"""Bytes an engine may need for each byte of its weights: float16 becomes float32, and some layouts are padded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What happened to one graph."""

    graph: str
    """component/graph"""
    digest: str
    built: bool
    """False: a good engine was there already."""
    build_s: float
    size_bytes: int
    max_abs_error: float
    median_ms: float | None
    """None where it was not measured."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether one graph's engine would be found, and why not."""

    graph: str
    digest: str
    found: bool
    differences: list[FieldDifference]
    problem: str | None


def pool_graphs(bundle: Bundle) -> list[str]:
    """The graphs that the pool needs, as component/graph: text, each denoiser with a step graph per kind of guidance, decoders, router."""
    names = [f"{name}/encode" for name, component in bundle.components.items() if component.role == "text_encoder"]
    for row in bundle.pool:
        has_condition = "condition" in bundle.components[row["denoiser"]].graphs
        names += [f"{row['denoiser']}/condition"] if has_condition else []
        names.append(f"{row['denoiser']}/{step_graph(row['guidance_scale'])}")
    return list(dict.fromkeys([*names, *(f"{row['decoder']}/decode" for row in bundle.pool), *router_graphs(bundle)]))


def router_graphs(bundle: Bundle) -> list[str]:
    """The graphs that the bundle's router runs, as component/graph."""
    roles = {name: component.role for name, component in bundle.components.items() if component.role in ROUTER_GRAPHS}
    return [f"{name}/{ROUTER_GRAPHS[role]}" for name, role in roles.items()] if bundle.router is not None else []


def make_spec(
    provider: str = "cpu", threads: int | None = None, shapes: Mapping[str, int] | None = None, allow_fallback: bool = False
) -> BuildSpec:
    """A build specification with this machine's defaults filled in; raises ConfigError."""
    if threads is not None and threads < 1:
        raise ConfigError("threads", threads, "1 or more")
    fixed = tuple(sorted((shapes or {}).items()))
    return BuildSpec(provider=provider, threads=threads or device.default_threads(), shapes=fixed, allow_fallback=allow_fallback)


def spec_for(
    bundle: Bundle, provider: str, threads: int | None, shapes: Mapping[str, int] | None = None, allow_fallback: bool = False
) -> BuildSpec:
    """A build specification for the bundle's engines; shapes: axis lengths to fix, None: those that never change, see `fixed_axes`."""
    return make_spec(provider, threads, fixed_axes(bundle) if shapes is None else shapes, allow_fallback)


def fixed_axes(bundle: Bundle) -> dict[str, int]:
    """Lengths of the axes that are always the same: those of one image, where the bundle makes images of one size only.

    An engine that knows all of them has a third fewer nodes, loads in two thirds of the time and takes 7 % less for a guided step of
    the postcard family on two cores. Knowing some of them gains nothing.
    """
    return {} if bundle.image.any_size or len(bundle.image.sizes) > 1 else axis_lengths(bundle)


def engine_key(bundle: Bundle, component: str, graph: str, backend: Backend, spec: BuildSpec) -> EngineKey:
    """The key under which the store must hold this graph's engine."""
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
        shapes=" ".join(f"{axis}={length}" for axis, length in spec.shapes),
        options=backend.options(spec),
        device=name,
        driver=driver,
        os=device.os_name(),
    )


def build_engines(
    bundle: Bundle,
    store: Store,
    *,
    backend: str = "onnxruntime",
    provider: str = "cpu",
    threads: int | None = None,
    shapes: Mapping[str, int] | None = None,
    graphs: Iterable[str] | None = None,
    force: bool = False,
    measure: bool = True,
    progress: Progress | None = None,
) -> list[BuildReport]:
    """Build what is missing or damaged among `graphs` (component/graph; None: what the pool needs), check it, measure it.

    Raises BundleError (files damaged, weights that give no numbers), EngineError (an engine that fails its check is set aside with the
    reason), StoreFullError, BackendError, ConfigError.
    """
    from costroute_rt.engines.profile import measure_missing

    tool, spec = get_backend(backend), spec_for(bundle, provider, threads, shapes)
    names = pool_graphs(bundle) if graphs is None else _known_graphs(bundle, graphs)
    keys = {name: engine_key(bundle, *split_name(name), tool, spec) for name in names}
    store.sweep()
    wanted = [name for name in names if force or _usable(store, keys[name]) is None]
    built: dict[str, StoredEngine] = {}
    for index, name in enumerate(wanted):
        if progress is not None:
            progress(name, index, len(wanted))
        stored = _build_one(bundle, store, name, keys[name], tool, spec, force)
        if stored is not None:
            built[name] = stored
    costs = measure_missing(bundle, store, keys, tool, spec) if measure else {}
    return [_report(name, built.get(name) or store.peek(keys[name]), name in built, costs) for name in names]


def open_engine(
    bundle: Bundle,
    store: Store,
    component: str,
    graph: str,
    *,
    backend: str = "onnxruntime",
    provider: str = "cpu",
    threads: int | None = None,
    shapes: Mapping[str, int] | None = None,
    allow_fallback: bool = False,
) -> Engine:
    """Open the graph's engine; raises EngineError, naming what differs from the nearest stored one, where there is none."""
    tool, spec = get_backend(backend), spec_for(bundle, provider, threads, shapes, allow_fallback)
    key = engine_key(bundle, component, graph, tool, spec)
    stored = store.find(key)
    if stored is None:
        raise EngineError(store.folder, f"there is no engine for {key.graph} ({_why(store.explain(key))})", BUILD)
    engine = tool.open(stored.path, spec, key)
    if engine.inputs.keys() != bundle.graphs[bundle.graph_path(component, graph)].inputs.keys():
        engine.close()
        raise EngineError(stored.path, f"it takes the inputs {sorted(engine.inputs)}, which are not its graph's", f"{BUILD} --force")
    return engine


def explain_engines(
    bundle: Bundle, store: Store, *, backend: str = "onnxruntime", provider: str = "cpu", threads: int | None = None
) -> list[Explanation]:
    """For each graph the pool needs: would its engine be found, and if not, why."""
    tool, spec = get_backend(backend), spec_for(bundle, provider, threads)
    return [_explain(store, name, engine_key(bundle, *split_name(name), tool, spec)) for name in pool_graphs(bundle)]


def split_name(name: str) -> tuple[str, str]:
    """component/graph as two names."""
    component, _, graph = name.partition("/")
    return component, graph


def _known_graphs(bundle: Bundle, names: Iterable[str]) -> list[str]:
    """Each name once; raises ConfigError for one that is no graph of the bundle."""
    known = [f"{name}/{graph}" for name, component in bundle.components.items() for graph in component.graphs]
    for name in names:
        if name not in known:
            raise ConfigError("graph", name, f"component/graph, one of {', '.join(known)}")
    return list(dict.fromkeys(names))


def _explain(store: Store, name: str, key: EngineKey) -> Explanation:
    try:
        found = store.find(key) is not None
    except EngineError as error:
        return Explanation(name, key.digest, False, [], str(error))
    differences = [] if found else store.explain(key)
    return Explanation(name, key.digest, found, differences, None if found else _why(differences))


def _why(differences: Iterable[FieldDifference]) -> str:
    return "; ".join(f"{d.field}: wanted {d.wanted or 'none'}, stored {d.found or 'none'}" for d in differences) or "none was built"


def _usable(store: Store, key: EngineKey) -> StoredEngine | None:
    """The stored engine, where it is good; a damaged one is to be built again, so it counts as missing."""
    try:
        return store.find(key)
    except EngineError as error:
        _log.warning("building again: %s", error)
        return None


def _build_one(bundle: Bundle, store: Store, name: str, key: EngineKey, tool: Backend, spec: BuildSpec, force: bool) -> StoredEngine | None:
    """Build one engine under its lock; None where another process did it meanwhile. Raises EngineError where it fails its check."""
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with store.lock(key.digest):
        if not force and _usable(store, key) is not None:
            return None
        source = bundle.verify_graph(*split_name(name))
        check_room(store.root, int(_ROOM * _weight_bytes(bundle, name)))
        stored = store.write(key, lambda folder: _fill(bundle, name, source, folder, tool, spec, started))
    if stored.quarantined:
        raise EngineError(stored.path, f"the engine of {key.graph} was set aside: {stored.quarantined}", f"{BUILD} --force")
    _log.info("built %s in %.1f s", key.graph, stored.build_s)
    return stored


def _fill(bundle: Bundle, name: str, source: Path, folder: Path, tool: Backend, spec: BuildSpec, started: str) -> dict[str, Any]:
    begin = time.perf_counter()
    try:
        tool.build(source, folder, spec)
        gate = _check(bundle, name, source, folder, tool, spec)
    except EngineError as error:
        if is_full(folder) or _UNWRITTEN in error.problem:
            raise StoreFullError(folder.parent, "there is no room to write the engine", "free some space, or set COSTROUTE_HOME") from error
        raise
    return {
        "built_at": started,
        "build_s": round(time.perf_counter() - begin, 3),
        "gate": gate.to_json(),
        "source": str(bundle.root),
        "quarantined": gate.problem,
    }


def _check(bundle: Bundle, name: str, source: Path, folder: Path, tool: Backend, spec: BuildSpec) -> GateResult:
    """Run the gate on a freshly written engine; raises BundleError where already the reference gives no numbers."""
    from costroute_rt.engines.onnxruntime_backend import OnnxRuntimeBackend

    path = bundle.graph_path(*split_name(name))
    feeds = example_feeds(bundle, path, sizes=dict(spec.shapes))
    reference = OnnxRuntimeBackend().run_reference(source, feeds)
    _check_interface(bundle, path, reference.engine)
    broken = unusable_output(reference.outputs())
    if broken is not None:
        weights = bundle.components[split_name(name)[0]].weights
        raise BundleError(
            bundle.root / (weights or path), f"its numbers make {broken} of {path} NaN or infinite", "export the bundle again"
        )
    with tool.open(folder, spec) as engine:
        return check_engine(engine, feeds, reference.outputs, spec.precision)


def _check_interface(bundle: Bundle, path: str, engine: Engine) -> None:
    """Raise BundleError where a graph takes or gives something else than the manifest says."""
    spec = bundle.graphs[path]
    for side, stated, real in (("inputs", spec.inputs, engine.inputs), ("outputs", spec.outputs, engine.outputs)):
        if stated.keys() != real.keys() or not all(_agree(stated[name], real[name]) for name in stated):
            said, found = (
                ", ".join(f"{name} {each[name].dtype}{list(each[name].shape)}" for name in sorted(each)) for each in (stated, real)
            )
            raise BundleError(bundle.root / path, f"its {side} are {found}; the manifest says {said}", "export the bundle again")


def _agree(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether a tensor may be both: lengths that both know are the same."""
    if one.dtype != other.dtype or len(one.shape) != len(other.shape):
        return False
    pairs = zip(one.shape, other.shape, strict=True)
    return all(isinstance(a, str) or isinstance(b, str) or a == b for a, b in pairs)


def _weight_bytes(bundle: Bundle, name: str) -> int:
    component, graph = split_name(name)
    weights = bundle.components[component].weights
    return bundle.files[bundle.graph_path(component, graph)].bytes + (bundle.files[weights].bytes if weights else 0)


def _report(name: str, stored: StoredEngine | None, built: bool, costs: Mapping[str, float]) -> BuildReport:
    if stored is None:
        raise EngineError(name, "its engine vanished while others were built", BUILD)
    error = float(stored.gate.get("max_abs_error", 0.0))
    return BuildReport(
        graph=name,
        digest=stored.digest,
        built=built,
        build_s=stored.build_s,
        size_bytes=stored.size_bytes,
        max_abs_error=error,
        median_ms=costs.get(name),
    )
