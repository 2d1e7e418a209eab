"""From a bundle's graphs to engines in the store, each checked before it is kept; and opening them."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from costroute_rt.engines.backends.engine import Backend, BuildProgress, Engine
from costroute_rt.engines.backends.key import ANY_DRIVER, EngineKey, FieldDifference
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.gate import GateResult, check_engine, unusable_output
from costroute_rt.engines.building.profile import measure_missing
from costroute_rt.engines.building.progress import Detail, Progress
from costroute_rt.engines.building.setup import USUAL, Setup
from costroute_rt.engines.building.shape import Size, split_name
from costroute_rt.engines.building.specification import graph_names, locate, pool_graphs, room_needed, sized_spec
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.durable import check_room, is_full
from costroute_rt.engines.store.store import Store, StoredEngine, check_files, load_stored
from costroute_rt.error import BundleError, EngineError, Reason, StoreFullError

_log = logging.getLogger(__name__)

_UNWRITTEN = "Failed to write"
"""How a backend says that a file could not be written, where a quota or limit is met that free space does not show."""


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
    """False: quarantined, or built where it cannot run; such an engine is checked when it is first opened, or built for, where it can."""
    median_ms: float | None
    """None where it was not measured."""
    quarantined: str | None
    """Why the engine must not be used; None for a good one."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether one graph's engine would be found, and why not."""

    graph: str
    digest: str
    found: bool
    differences: list[FieldDifference]
    problem: str | None


def build_engines(
    bundle: Bundle,
    store: Store,
    setup: Setup = USUAL,
    *,
    graphs: Iterable[str] | None = None,
    size: Size | None = None,
    force: bool = False,
    measure: bool = True,
    progress: Progress | None = None,
    detail: Detail | None = None,
) -> list[BuildReport]:
    """Build what is missing or damaged among `graphs` (component/graph; None: what the pool needs), check it, measure it.

    size: build engines that know this height and width, in pixels, for the graphs that depend on it. None: those that take any, with
    TensorRT also those that know the bundle's usual size.
    An engine built where it cannot run is neither checked nor measured before it can: by this function, or when it is first opened.
    Raises BundleError (files damaged, weights that give no numbers), EngineError (an engine that fails its check is quarantined with the
    reason, and not built again until something in its key changes), StoreFullError, BackendError, ConfigError.
    """
    names = graph_names(bundle, graphs, size, setup.tool())
    reports = build_each(bundle, store, names, setup, force=force, measure=measure, progress=progress, detail=detail)
    raise_quarantined(bundle, store, reports)
    return reports


def build_each(
    bundle: Bundle,
    store: Store,
    names: Sequence[str],
    setup: Setup,
    *,
    force: bool = False,
    measure: bool = True,
    progress: Progress | None = None,
    detail: Detail | None = None,
) -> list[BuildReport]:
    """`build_engines` for engines by name, where one that is quarantined is reported instead of raised."""
    tool, spec = setup.tool(), setup.spec(bundle)
    keys = {name: setup.key(bundle, name) for name in names}
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
    good = [name for name, stored in found.items() if stored is not None and not stored.quarantined]
    costs = measure_missing(bundle, store, good, setup) if measure and tool.obstacle() is None else {}
    return [_report(name, found[name], name in built, costs) for name in names]


def raise_quarantined(bundle: Bundle, store: Store, reports: Iterable[BuildReport]) -> None:
    """Raise EngineError where engines are quarantined, now or by an earlier build."""
    bad = [report for report in reports if report.quarantined]
    if bad:
        problem = "; ".join(f"the engine of {each.graph} is quarantined: {each.quarantined}" for each in bad)
        key = load_stored(store.folder / bad[0].digest).key
        raise locate(EngineError(problem, reason=Reason.QUARANTINED, path=store.folder), bundle, bad[0].graph, key)


def open_engine(bundle: Bundle, store: Store, name: str, setup: Setup = USUAL) -> Engine:
    """Open the engine called `name`, component/graph, which may name a size; one that was built where it could not run is checked first.

    Raises EngineError, naming what differs from the nearest stored one, where there is none.
    """
    tool, spec, key = setup.tool(), sized_spec(bundle, name, setup.spec(bundle)), setup.key(bundle, name)
    try:
        stored = store.find(key)
        if stored is not None and not _is_ready(stored, tool):
            _build_one(bundle, store, name, key, tool, spec)
            stored = store.find(key)
        engine = None if stored is None else tool.open(stored.path, spec, key)
    except EngineError as error:
        raise locate(error, bundle, name, key) from error
    if stored is None or engine is None:
        problem = f"there is no such engine ({describe_miss(store.explain(key))})"
        raise locate(EngineError(problem, reason=Reason.MISSING, path=store.folder), bundle, name, key)
    if engine.inputs.keys() != bundle.graphs[bundle.graph_path(*split_name(name))].inputs.keys():
        engine.close()
        problem = f"it takes the inputs {sorted(engine.inputs)}, which are not its graph's"
        raise locate(EngineError(problem, reason=Reason.DAMAGED, path=stored.path), bundle, name, key)
    store.note_use(stored)
    return engine


def explain_engines(bundle: Bundle, store: Store, setup: Setup = USUAL) -> list[Explanation]:
    """For each graph the pool needs: would its engine be found, and if not, why."""
    return [_explain(store, name, setup.key(bundle, name)) for name in pool_graphs(bundle)]


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
    """The stored engine, good or quarantined; a damaged one is to be built again, so it counts as missing."""
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
    """Build one engine under its lock, or only check it where that could not be done when it was built; one that fails is quarantined.

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

        try:
            stored = store.write(key, fill)
        except EngineError as error:
            raise locate(error, bundle, name, key) from error
    if stored.quarantined:
        _log.warning("the engine of %s is quarantined: %s", name, stored.quarantined)
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
            raise StoreFullError("there is no room to write the engine", reason=Reason.FULL, path=folder.parent) from error
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
    from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend

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


def _report(name: str, stored: StoredEngine | None, built: bool, costs: Mapping[str, float]) -> BuildReport:
    if stored is None:
        raise EngineError("it vanished while others were built", reason=Reason.MISSING, engine=name)
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
        quarantined=stored.quarantined,
    )
