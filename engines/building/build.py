"""From a bundle's graphs to engines in the store, each checked before it is kept; and opening them."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from costroute_rt.engines.backends.engine import Backend, BuildProgress, Engine, Stoppable
from costroute_rt.engines.backends.key import ANY_DRIVER, EngineKey
from costroute_rt.engines.backends.polling import run_polled
from costroute_rt.engines.backends.setup import USUAL, Setup
from costroute_rt.engines.backends.shared import share_engine
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.building.duration import expected_build_s, stored_bytes, work_size
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.gate import Clock, GateResult, Reference, check_engine, unusable_output
from costroute_rt.engines.building.limit import Limits, watch
from costroute_rt.engines.building.lookup import describe_miss, locate, make_key
from costroute_rt.engines.building.profile import find_unmeasured, measure_missing, measuring_steps
from costroute_rt.engines.building.progress import OnOpen, Stage, Step, Tracker
from costroute_rt.engines.building.source import verified_graph
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.engines.machine.durable import check_room, is_full
from costroute_rt.engines.machine.memory import give_back_memory
from costroute_rt.engines.store.store import Store, StoredEngine, portable_device
from costroute_rt.error import BundleError, EngineError, Reason, StoreFullError

_log = logging.getLogger(__name__)

_UNWRITTEN = "Failed to write"
"""Text of a backend's error when a file could not be written because of a quota or limit that free space does not show."""
_ROOM = 2.5
"""Bytes an engine may need for each byte of its weights: float16 becomes float32, and some layouts are padded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What happened to one engine."""

    engine: str
    digest: str
    built: bool
    """False: a good engine existed already."""
    build_s: float
    size_bytes: int
    max_abs_error: float | None
    """None where it could not be checked."""
    proved: bool
    """False: quarantined, or built where it cannot run; such an engine is checked when it is first opened on a machine that can run it."""
    median_ms: float | None
    """None where it was not measured."""
    quarantined: str | None
    """Why the engine must not be used; None for a good one."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One engine to build or to open."""

    bundle: Bundle
    name: str
    key: EngineKey
    tool: Backend
    spec: BuildSpec
    threads: int | None
    """As they were asked for; None for this machine's default."""

    @classmethod
    def of(cls, bundle: Bundle, name: str, setup: Setup) -> _Wanted:
        tool, spec = setup.tool(), setup.spec(bundle, name)
        return cls(bundle, name, make_key(bundle, name, tool, spec), tool, spec, setup.threads)

    @property
    def path(self) -> str:
        """The graph's, in the bundle."""
        component, graph = EngineName.parse(self.name)[1:3]
        return self.bundle.graph_path(component, graph)

    def is_done(self, store: Store, stored: StoredEngine | None) -> bool:
        """Whether a stored engine is complete: it was checked on this machine's device, or cannot be checked here.

        An engine for any driver in an extra store is not: it is checked, and put into the store itself, where its device adds files.
        """
        if stored is None:
            return False
        is_checked = stored.was_checked and (self.key.driver != ANY_DRIVER or store.owns(stored))
        return is_checked or self.tool.obstacle() is not None

    def locate(self, error: EngineError) -> EngineError:
        return locate(error, self.bundle, self.name, self.key, self.threads)


def build_engines(
    bundle: Bundle,
    store: Store,
    names: Sequence[str],
    setup: Setup = USUAL,
    *,
    force: bool = False,
    measure: bool = True,
    progress: OnOpen | None = None,
    cancel: threading.Event | None = None,
    clock: Clock = time.monotonic,
) -> list[BuildReport]:
    """Build the engines that are missing or damaged among `names`, check them, measure them.

    force: also those that exist already or are quarantined.
    progress: called with an OpenEvent at each step and several times a second; returning False cancels. cancel: an event that does it.
    A cancelled build raises CancelledError and keeps the engines that are complete.
    clock: for the limits of time, which follow from the size of a graph and its weights; LimitError, an EngineError, is raised at them.
    An engine built where it cannot run is neither checked nor measured before it can: by this function, or when it is first opened.
    An engine that fails its check is quarantined with the reason, and not built again until something in its key changes.
    Raises BundleError (files damaged, weights that give NaN or infinity), EngineError (quarantined engines, too), StoreFullError,
    BackendError, ConfigError.
    """
    tracker = Tracker(progress, cancel)
    reports = build_each(bundle, store, names, setup, force=force, measure=measure, tracker=tracker, clock=clock)
    tracker.finish()
    raise_quarantined(bundle, store, reports, setup.threads)
    return reports


def build_each(
    bundle: Bundle,
    store: Store,
    names: Sequence[str],
    setup: Setup,
    *,
    force: bool = False,
    measure: bool = True,
    tracker: Tracker | None = None,
    clock: Clock = time.monotonic,
) -> list[BuildReport]:
    """`build_engines`, where a quarantined engine is reported instead of raised, with the tracker of a longer piece of work."""
    tracker = tracker or Tracker()
    all_wanted = [_Wanted.of(bundle, name, setup) for name in names]
    store.sweep()
    todo = [wanted for wanted in all_wanted if force or not wanted.is_done(store, _find_intact(store, wanted.key))]
    measures = measure and setup.tool().obstacle() is None
    _plan(tracker, bundle, store, names, setup, todo, measures=measures)
    built: dict[str, StoredEngine] = {}
    bundle.check_graphs(wanted.path for wanted in todo)  # a bundle that must not be used is refused before the first long build
    for wanted in todo:
        tracker.start(Stage.BUILD, wanted.name)
        stored = _build_one(store, wanted, force=force, poll=tracker.poll, clock=clock)
        if stored is not None:
            built[wanted.name] = stored
            give_back_memory()
    found = {wanted.name: built.get(wanted.name) or store.peek(wanted.key) for wanted in all_wanted}
    good = [name for name, stored in found.items() if stored is not None and not stored.quarantined]
    costs = measure_missing(bundle, store, good, setup, tracker) if measures else {}
    if costs:
        give_back_memory()
    return [_report(name, found[name], name in built, costs) for name in names]


def _plan(
    tracker: Tracker, bundle: Bundle, store: Store, names: Sequence[str], setup: Setup, todo: Sequence[_Wanted], *, measures: bool
) -> None:
    """Tell the tracker which engines will be built and measured."""
    if tracker.poll is None:
        return
    records, steps = store.engines() if todo else [], list[Step]()
    for wanted in todo:
        expected_s = expected_build_s(wanted.key, records, room_needed(bundle, wanted.name))
        size = work_size(bundle, wanted.name, Stage.BUILD)
        steps.append(Step(stage=Stage.BUILD, engine=wanted.name, expected_s=expected_s, size=size))
    tracker.plan(Stage.BUILD, steps)
    if measures:
        new = {wanted.name for wanted in todo}
        unmeasured = new | set(find_unmeasured(bundle, store, [name for name in names if name not in new], setup))
        tracker.plan(Stage.MEASURE, measuring_steps(bundle, [name for name in names if name in unmeasured]))


def raise_quarantined(bundle: Bundle, store: Store, reports: Iterable[BuildReport], threads: int | None = None) -> None:
    """Raise EngineError where engines are quarantined, now or by an earlier build; threads: as the setup has them."""
    bad = [report for report in reports if report.quarantined]
    if bad:
        first, *others = bad
        problem = "; ".join([f"it is quarantined: {first.quarantined}", *(f"{each.engine} too: {each.quarantined}" for each in others)])
        key = next(stored.key for stored in store.engines() if stored.digest == first.digest)
        raise locate(EngineError(problem, reason=Reason.QUARANTINED, path=store.folder), bundle, first.engine, key, threads)


def open_engine(bundle: Bundle, store: Store, name: str, setup: Setup = USUAL) -> Engine:
    """Open an engine; one that was built where it could not run is checked first.

    Raises EngineError, naming what differs from the nearest stored one, where there is none.
    """
    wanted = _Wanted.of(bundle, name, setup)
    try:
        stored = store.find(wanted.key)
        if stored is not None and not wanted.is_done(store, stored):
            _build_one(store, wanted)
            stored = store.find(wanted.key)
        if stored is None:
            problem = f"there is no such engine ({describe_miss(store.explain(wanted.key))})"
            raise EngineError(problem, reason=Reason.MISSING, path=store.folder)
        engine = _open_shared(wanted, stored)
        if engine.inputs.keys() != bundle.graphs[wanted.path].inputs.keys():
            engine.close()
            problem = f"it takes the inputs {sorted(engine.inputs)}, which are not its graph's"
            raise EngineError(problem, reason=Reason.DAMAGED, path=stored.path)
    except EngineError as error:
        raise wanted.locate(error) from error
    store.note_use(stored)
    return engine


def _open_shared(wanted: _Wanted, stored: StoredEngine) -> Engine:
    """The engine, shared with whoever has opened the same files in this process for the same provider and threads."""
    spec = replace(wanted.spec, threads=wanted.spec.thread_count())
    identity = (stored.path, stored.sha256, wanted.tool.name, spec.provider, spec.threads)
    return share_engine(identity, lambda: wanted.tool.open(stored.path, spec, wanted.key))


def room_needed(bundle: Bundle, name: str) -> int:
    """The most bytes that an engine may need."""
    return int(_ROOM * stored_bytes(bundle, name))


def _find_intact(store: Store, key: EngineKey) -> StoredEngine | None:
    """The stored engine, good or quarantined; a damaged one is to be built again, so it counts as missing."""
    try:
        stored = store.peek(key)
        if stored is not None:
            store.check_files(stored)
    except EngineError as error:
        _log.warning("building again: %s", error)
        return None
    return stored


def _build_one(
    store: Store, wanted: _Wanted, *, force: bool = False, poll: BuildProgress | None = None, clock: Clock = time.monotonic
) -> StoredEngine | None:
    """Build one engine under its lock, or only check it where that could not be done when it was built; one that fails is quarantined.

    None where another process did it meanwhile.
    """
    bundle, key = wanted.bundle, wanted.key
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with store.lock(key.digest, poll=poll):
        old = None if force else _find_intact(store, key)
        if wanted.is_done(store, old):
            return None
        check_room(store.root, room_needed(bundle, wanted.name))
        _, component, graph, _ = EngineName.parse(wanted.name)

        def fill(folder: Path) -> dict[str, Any]:
            with verified_graph(bundle, store, component, graph, key.digest) as source:
                watched = partial(watch, poll, Limits.of(stored_bytes(bundle, wanted.name)), clock=clock)
                if old is None or old.quarantined:  # on another device: the files of such an engine are gone
                    make = partial(wanted.tool.build, source, folder, wanted.spec)
                    return _fill(wanted, source, folder, started, lambda: make(watched(f"the build of {wanted.name}")), watched)
                entries = _fill(wanted, source, folder, started, lambda: copy_engine(old, folder), watched)
                return {**entries, "built_at": old.built_at, "build_s": old.build_s}

        try:
            stored = store.write(key, fill)
        except EngineError as error:
            raise wanted.locate(error) from error
    if stored.quarantined:
        _log.warning("the engine %s is quarantined: %s", wanted.name, stored.quarantined)
    else:
        _log.info("built %s in %.1f s", wanted.name, stored.build_s)
    return stored


def _fill(
    wanted: _Wanted, source: Path, folder: Path, started: str, make: Callable[[], object], watched: Callable[[str], BuildProgress]
) -> dict[str, Any]:
    """The manifest entries of an engine that `make` writes into `folder`, checked where it can run.

    watched: begins to watch the limits of a piece of work, given as a noun.
    """
    begin = time.perf_counter()
    try:
        make()
        can_run = wanted.tool.obstacle() is None
        gate = _run_check(wanted, source, folder, watched(f"the check of {wanted.name}")) if can_run else None
        if gate is not None and gate.problem is not None:
            for path in folder.iterdir():  # only the reason is kept
                path.unlink()
    except EngineError as error:
        if is_full(folder) or _UNWRITTEN in error.problem:
            raise StoreFullError("there is no room to write the engine", reason=Reason.FULL, path=folder.parent) from error
        raise
    return {
        "built_at": started,
        "build_s": round(time.perf_counter() - begin, 3),
        "gate": {} if gate is None else _gate_json(gate, wanted),
        "source": str(wanted.bundle.root),
        "quarantined": None if gate is None else gate.problem,
    }


def _gate_json(gate: GateResult, wanted: _Wanted) -> dict[str, Any]:
    device_now = portable_device(wanted.key.driver)
    return gate.to_json() if device_now is None else {**gate.to_json(), "device": device_now}


def copy_engine(stored: StoredEngine, folder: Path) -> None:
    """Put the files of a stored engine into another folder of the store, as links where the disk can."""
    for name in stored.files:
        try:
            os.link(stored.path / name, folder / name)
        except OSError:  # not every file system can
            shutil.copyfile(stored.path / name, folder / name)


def _run_check(wanted: _Wanted, source: Path, folder: Path, poll: BuildProgress) -> GateResult:
    """`_check` while `poll` is called; what that raises ends the engine that runs."""
    running: list[Engine] = []

    def stop() -> None:
        for engine in running:
            if isinstance(engine, Stoppable):
                engine.stop()

    return run_polled(lambda: _check(wanted, source, folder, running), poll, what=f"the check of {wanted.name}", stop=stop)


def _check(wanted: _Wanted, source: Path, folder: Path, running: list[Engine]) -> GateResult:
    """Run the gate on a freshly written engine; raises BundleError where the reference itself gives NaN or infinity, or one value only.

    running: gets the engines that run, for the thread that may stop them.
    """
    from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend

    bundle, path, spec = wanted.bundle, wanted.path, wanted.spec
    feeds, component = example_feeds(bundle, path, dict(spec.shapes)), bundle.components[EngineName.parse(wanted.name).component]
    give_back_memory()  # what the build left
    with ExitStack() as stack:
        graph = stack.enter_context(OnnxRuntimeBackend().open_reference(source))
        running.append(graph)
        _check_interface(bundle, path, graph)
        reference = Reference.run(lambda: graph.run(feeds))
        broken = unusable_output(reference.outputs)
        if broken is not None:
            weights = next(iter(component.weights), path)
            raise BundleError(bundle.root / weights, f"its numbers make {broken[0]} of {path} {broken[1]}", "export the bundle again")
        if reference.is_long:  # a large graph, most of the time
            graph.close()
            give_back_memory()
        engine = stack.enter_context(wanted.tool.open(folder, spec))
        running.append(engine)
        return check_engine(engine, feeds, reference, "int8" if component.weight_precision == "int8" else spec.precision)


def _check_interface(bundle: Bundle, path: str, engine: Engine) -> None:
    """Raise BundleError where inputs or outputs of a graph differ from the manifest."""
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
        engine=name,
        digest=stored.digest,
        built=built,
        build_s=stored.build_s,
        size_bytes=stored.size_bytes,
        max_abs_error=None if error is None else float(error),
        proved=stored.is_proved,
        median_ms=costs.get(name),
        quarantined=stored.quarantined,
    )
