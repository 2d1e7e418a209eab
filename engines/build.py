"""From a bundle's graphs to engines in the store, each checked before it is kept; and opening them."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from costroute_rt.engines import device
from costroute_rt.engines.bundle import Bundle
from costroute_rt.engines.bundle_manifest import ROUTER_GRAPHS, GraphSpec, TensorSpec, step_graph
from costroute_rt.engines.durable import check_room, is_full
from costroute_rt.engines.engine import (
    ANY_DRIVER,
    AUTO,
    PRECISIONS,
    AxisRange,
    Backend,
    BuildProgress,
    BuildSpec,
    Engine,
    EngineKey,
    FieldDifference,
    get_backend,
)
from costroute_rt.engines.error import BundleError, ConfigError, EngineError, StoreFullError
from costroute_rt.engines.example import PROMPT_TOKENS, axis_lengths, example_feeds
from costroute_rt.engines.gate import GateResult, check_engine, unusable_output
from costroute_rt.engines.shape import Size, fixed_axes, size_of, split_name, with_size
from costroute_rt.engines.store import BUILD, Store, StoredEngine, build_command, check_files, load_stored

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], object]
"""Called as progress(graph, index, total) before each graph that is really worked on; what it raises stops the work."""
Detail = Callable[[str, float], object]
"""Called as detail(graph, share) while a graph is built, where its backend can tell, with 0 to 1; what it raises stops the work."""

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
    max_abs_error: float | None
    """None where it could not be checked."""
    proved: bool
    """False: set aside, or built where it cannot run; such an engine is checked when it is first opened, or built for, where it can."""
    median_ms: float | None
    """None where it was not measured."""
    set_aside: str | None
    """Why the engine must not be used; None for a good one."""


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


def make_spec(
    provider: str = "cpu",
    threads: int | None = None,
    shapes: Mapping[str, int] | None = None,
    precision: str = "float32",
    target: str = "",
) -> BuildSpec:
    """A build specification with this machine's defaults filled in; raises ConfigError."""
    if threads is not None and threads < 1:
        raise ConfigError("threads", threads, "1 or more")
    if precision not in PRECISIONS:
        raise ConfigError("precision", precision, f"one of {', '.join(PRECISIONS)}")
    return BuildSpec(
        provider=provider,
        precision=precision,
        threads=threads or device.default_threads(),
        shapes=tuple(sorted((shapes or {}).items())),
        target=target,
    )


def spec_for(
    bundle: Bundle,
    tool: Backend,
    provider: str,
    threads: int | None,
    shapes: Mapping[str, int] | None = None,
    precision: str = AUTO,
    target: str = "",
) -> BuildSpec:
    """A build specification for the bundle's engines; shapes: axis lengths to fix, None: those that never change, see `fixed_axes`."""
    provider = tool.default_provider if provider == AUTO else provider
    precision = tool.default_precision if precision == AUTO else precision
    spec = make_spec(provider, threads, fixed_axes(bundle) if shapes is None else shapes, precision=precision, target=target)
    return replace(spec, ranges=free_axes(bundle)) if tool.needs_ranges else spec


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


def engine_key(bundle: Bundle, component: str, graph: str, backend: Backend, spec: BuildSpec) -> EngineKey:
    """The key under which the store must hold this graph's engine; graph: may name a size (`step@512x768`)."""
    spec = sized_spec(bundle, graph, spec)
    component, graph = split_name(f"{component}/{graph}")
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


def named_key(bundle: Bundle, name: str, backend: Backend, spec: BuildSpec) -> EngineKey:
    """`engine_key` for an engine by its name, component/graph, which may name a size."""
    component, _, graph = name.partition("/")
    return engine_key(bundle, component, graph, backend, spec)


def build_engines(
    bundle: Bundle,
    store: Store,
    *,
    backend: str = "onnxruntime",
    provider: str = AUTO,
    precision: str = AUTO,
    threads: int | None = None,
    shapes: Mapping[str, int] | None = None,
    graphs: Iterable[str] | None = None,
    size: Size | None = None,
    target: str = "",
    force: bool = False,
    measure: bool = True,
    progress: Progress | None = None,
    detail: Detail | None = None,
) -> list[BuildReport]:
    """Build what is missing or damaged among `graphs` (component/graph; None: what the pool needs), check it, measure it.

    size: build engines that know this height and width, in pixels, for the graphs that depend on it.
    target: cards to build for, such as `ampere+`, where the backend can. An engine built where it cannot run is neither checked nor
    measured before it can: by this function, or when it is first opened.
    Raises BundleError (files damaged, weights that give no numbers), EngineError (an engine that fails its check is set aside with the
    reason, and not built again until something in its key changes), StoreFullError, BackendError, ConfigError.
    """
    tool = get_backend(backend)
    spec = spec_for(bundle, tool, provider, threads, shapes, precision=precision, target=target)
    names = graph_names(bundle, graphs, size)
    reports = build_each(bundle, store, names, tool, spec, force=force, measure=measure, progress=progress, detail=detail)
    raise_set_aside(store, reports)
    return reports


def build_each(
    bundle: Bundle,
    store: Store,
    names: Sequence[str],
    tool: Backend,
    spec: BuildSpec,
    *,
    force: bool = False,
    measure: bool = True,
    progress: Progress | None = None,
    detail: Detail | None = None,
) -> list[BuildReport]:
    """`build_engines` for engines by name, where one that is set aside is told in its report instead of raised."""
    from costroute_rt.engines.profile import measure_missing

    keys = {name: named_key(bundle, name, tool, spec) for name in names}
    store.sweep()
    wanted = [name for name in names if force or not _is_ready(_present(store, keys[name]), tool)]
    built: dict[str, StoredEngine] = {}
    for index, name in enumerate(wanted):
        if progress is not None:
            progress(name, index, len(wanted))
        share = partial(detail, name) if detail is not None else None
        stored = _build_one(bundle, store, name, keys[name], tool, sized_spec(bundle, name, spec), force=force, share=share)
        if stored is not None:
            built[name] = stored
    found = {name: built.get(name) or store.peek(keys[name]) for name in names}
    good = {name: keys[name] for name, stored in found.items() if stored is not None and not stored.quarantined}
    costs = measure_missing(bundle, store, good, tool, spec) if measure and tool.obstacle() is None else {}
    return [_report(name, found[name], name in built, costs) for name in names]


def raise_set_aside(store: Store, reports: Iterable[BuildReport]) -> None:
    """Raise EngineError where engines were set aside, now or by an earlier build."""
    bad = [report for report in reports if report.set_aside]
    if bad:
        told = "; ".join(f"the engine of {each.graph} was set aside: {each.set_aside}" for each in bad)
        again = build_command(load_stored(store.folder / bad[0].digest).key, "--force")
        raise EngineError(store.folder, told, f"{again} builds it again; without, it waits until something in its key changes")


def graph_names(bundle: Bundle, graphs: Iterable[str] | None = None, size: Size | None = None) -> list[str]:
    """The engines to build, by name: of `graphs`, or of what the pool needs; raises ConfigError for a graph or size there is not."""
    names = pool_graphs(bundle) if graphs is None else _known_graphs(bundle, graphs)
    return names if size is None else with_size(bundle, names, size)


def open_engine(
    bundle: Bundle,
    store: Store,
    component: str,
    graph: str,
    *,
    backend: str = "onnxruntime",
    provider: str = AUTO,
    precision: str = AUTO,
    threads: int | None = None,
    shapes: Mapping[str, int] | None = None,
    target: str = "",
) -> Engine:
    """Open the graph's engine; raises EngineError, naming what differs from the nearest stored one, where there is none.

    An engine that was built where it could not run is checked first.
    """
    tool = get_backend(backend)
    spec = spec_for(bundle, tool, provider, threads, shapes, precision, target)
    return open_named(bundle, store, f"{component}/{graph}", tool, spec)


def open_named(bundle: Bundle, store: Store, name: str, tool: Backend, spec: BuildSpec) -> Engine:
    """`open_engine` for an engine by its name, component/graph, which may name a size."""
    key, spec = named_key(bundle, name, tool, spec), sized_spec(bundle, name, spec)
    stored = store.find(key)
    if stored is not None and not _is_ready(stored, tool):
        _build_one(bundle, store, name, key, tool, spec)
        stored = store.find(key)
    if stored is None:
        problem = f"there is no engine for {key.graph} ({describe_miss(store.explain(key))})"
        raise EngineError(store.folder, problem, build_command(key, *_size_options(name)))
    engine = tool.open(stored.path, spec, key)
    if engine.inputs.keys() != bundle.graphs[bundle.graph_path(*split_name(name))].inputs.keys():
        engine.close()
        problem = f"it takes the inputs {sorted(engine.inputs)}, which are not its graph's"
        raise EngineError(stored.path, problem, build_command(key, *_size_options(name), "--force"))
    store.note_use(stored)
    return engine


def _size_options(name: str) -> tuple[str, ...]:
    size = size_of(name)
    return () if size is None else ("--height", str(size[0]), "--width", str(size[1]))


def explain_engines(
    bundle: Bundle,
    store: Store,
    *,
    backend: str = "onnxruntime",
    provider: str = AUTO,
    precision: str = AUTO,
    threads: int | None = None,
    target: str = "",
) -> list[Explanation]:
    """For each graph the pool needs: would its engine be found, and if not, why."""
    tool = get_backend(backend)
    spec = spec_for(bundle, tool, provider, threads, precision=precision, target=target)
    return [_explain(store, name, named_key(bundle, name, tool, spec)) for name in pool_graphs(bundle)]


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
    return Explanation(name, key.digest, found, differences, None if found else describe_miss(differences))


def describe_miss(differences: Iterable[FieldDifference]) -> str:
    """Why an engine is not there, from how the nearest stored one differs."""
    found = {each.field: each for each in differences}
    if "backend" in found:  # all else differs too, and says nothing
        return f"built by {found['backend'].found}"
    return "; ".join(map(str, found.values())) or "none was built"


def _present(store: Store, key: EngineKey) -> StoredEngine | None:
    """The stored engine, good or set aside; a damaged one is to be built again, so it counts as missing."""
    try:
        stored = store.peek(key)
        if stored is not None:
            check_files(stored)
    except EngineError as error:
        _log.warning("building again: %s", error)
        return None
    return stored


def _is_ready(stored: StoredEngine | None, tool: Backend) -> bool:
    """Whether nothing is to be done for an engine: it was checked on this machine's device, or cannot be checked here."""
    return stored is not None and (was_checked(stored) or tool.obstacle() is not None)


def is_proved(stored: StoredEngine) -> bool:
    """Whether it passed its check, on the device of this machine where it is for more than one."""
    return stored.quarantined is None and was_checked(stored)


def was_checked(stored: StoredEngine) -> bool:
    """Whether it was checked, good or not, on the device of this machine where it is for more than one."""
    return bool(stored.gate) and stored.gate.get("device") == _portable_device(stored.key.driver)


def _portable_device(driver: str) -> str | None:
    """The device and driver that run an engine made for any driver; None for one whose key names them."""
    return " ".join(device.gpu()) if driver == ANY_DRIVER else None


def _build_one(
    bundle: Bundle,
    store: Store,
    name: str,
    key: EngineKey,
    tool: Backend,
    spec: BuildSpec,
    *,
    force: bool = False,
    share: BuildProgress | None = None,
) -> StoredEngine | None:
    """Build one engine under its lock, or only check it where that could not be done when it was built; one that fails is set aside.

    None where another process did it meanwhile.
    """
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with store.lock(key.digest):
        old = None if force else _present(store, key)
        if _is_ready(old, tool):
            return None
        source = bundle.verify_graph(*split_name(name))
        check_room(store.root, room_needed(bundle, name))

        def fill(folder: Path) -> dict[str, Any]:
            if old is None or old.quarantined:  # on another device: of such an engine the files are gone
                return _fill(bundle, name, source, folder, tool, spec, started, lambda: tool.build(source, folder, spec, share))
            entries = _fill(bundle, name, source, folder, tool, spec, started, lambda: _copy_engine(old, folder))
            return {**entries, "built_at": old.built_at, "build_s": old.build_s}

        stored = store.write(key, fill)
    if stored.quarantined:
        _log.warning("the engine of %s was set aside: %s", name, stored.quarantined)
    else:
        _log.info("built %s in %.1f s", key.graph, stored.build_s)
    return stored


def _fill(
    bundle: Bundle,
    name: str,
    source: Path,
    folder: Path,
    tool: Backend,
    spec: BuildSpec,
    started: str,
    make: Callable[[], object],
) -> dict[str, Any]:
    """The manifest entries of an engine that `make` writes into `folder`, checked where it can run."""
    begin = time.perf_counter()
    try:
        make()
        gate = _check(bundle, name, source, folder, tool, spec) if tool.obstacle() is None else None
        if gate is not None and gate.problem is not None:
            for path in folder.iterdir():  # what is kept of it is the reason
                path.unlink()
    except EngineError as error:
        if is_full(folder) or _UNWRITTEN in error.problem:
            raise StoreFullError(folder.parent, "there is no room to write the engine", "free some space, or set COSTROUTE_HOME") from error
        raise
    return {
        "built_at": started,
        "build_s": round(time.perf_counter() - begin, 3),
        "gate": {} if gate is None else _gate_json(gate, tool, spec),
        "source": str(bundle.root),
        "quarantined": None if gate is None else gate.problem,
    }


def _gate_json(gate: GateResult, tool: Backend, spec: BuildSpec) -> dict[str, Any]:
    device_now = _portable_device(tool.device(spec)[1])
    return gate.to_json() if device_now is None else {**gate.to_json(), "device": device_now}


def _copy_engine(stored: StoredEngine, folder: Path) -> None:
    for name in stored.files:
        try:
            os.link(stored.path / name, folder / name)
        except OSError:  # not every file system can
            shutil.copyfile(stored.path / name, folder / name)


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


def _describe_shapes(graph: GraphSpec, spec: BuildSpec) -> str:
    """Fixed axes, and the ranges of those the graph has beside them."""
    fixed = dict(spec.shapes)
    free = {axis for port in graph.inputs.values() for axis in port.shape} - fixed.keys()
    ranges = [f"{axis}={least}..{usual}..{most}" for axis, least, usual, most in spec.ranges if axis in free]
    return " ".join([*(f"{axis}={length}" for axis, length in spec.shapes), *ranges])


def room_needed(bundle: Bundle, name: str) -> int:
    """The most bytes that the engine of a graph may need."""
    component, graph = split_name(name)
    weights = bundle.components[component].weights
    stored = bundle.files[bundle.graph_path(component, graph)].bytes + (bundle.files[weights].bytes if weights else 0)
    return int(_ROOM * stored)


def _report(name: str, stored: StoredEngine | None, built: bool, costs: Mapping[str, float]) -> BuildReport:
    if stored is None:
        raise EngineError(name, "its engine vanished while others were built", BUILD)
    error = stored.gate.get("max_abs_error")
    return BuildReport(
        graph=name,
        digest=stored.digest,
        built=built,
        build_s=stored.build_s,
        size_bytes=stored.size_bytes,
        max_abs_error=None if error is None else float(error),
        proved=is_proved(stored),
        median_ms=costs.get(name),
        set_aside=stored.quarantined,
    )
