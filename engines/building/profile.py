"""Measuring engines on this device: how long a call takes, and loading."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from costroute_rt.engines.backends.engine import Backend, Engine
from costroute_rt.engines.backends.setup import USUAL, Setup
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.building.duration import work_size
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.gate import Clock
from costroute_rt.engines.building.lookup import engine_key, locate, read_cost, write_cost
from costroute_rt.engines.building.progress import OnOpen, Stage, Step, Tracker
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.engines.machine.condition import Condition
from costroute_rt.engines.machine.memory import give_back_memory, peak_bytes, resident_bytes, restart_peak
from costroute_rt.engines.store.cost import COSTS, CallCost, EngineCost
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.error import EngineError, Reason

_log = logging.getLogger(__name__)

_WARM_UP, _CALLS, _LEAST_CALLS = 3, 40, 20
_WARM_UP_SHARE, _FEWEST_CALLS, _OWN_LIMIT_S = 0.25, 2, 6.0
"""An engine that has the fewest calls is not called again once they have taken this long; the warm-up is at most this share of them."""
_LIMIT_S, _FIRST_LIMIT_S = 20.0, 0.8
"""Measuring stops after this long once every engine has its least number of calls: for `profile`, and within a build."""
_LOADS, _FIRST_LOADS = 3, 2
_LARGE_BYTES = 1 << 30
"""An engine beyond this size is loaded once, called while no other large one is open, and closed: two may not fit into the memory."""
_MEASURING = "measuring"
"""The lock of the process that measures in a store: two at once would disturb each other."""


def profile_engines(
    bundle: Bundle,
    store: Store,
    names: Iterable[str],
    setup: Setup = USUAL,
    *,
    progress: OnOpen | None = None,
    cancel: threading.Event | None = None,
    clock: Clock = time.perf_counter,
) -> list[EngineCost]:
    """Time the engines in turns, as generating an image uses them, and keep their costs beside those of other conditions.

    Waits for others who measure in this store. Raises EngineError where an engine is missing, CancelledError.

    progress: called with an OpenEvent at each step and during it; returning False cancels. cancel: an event that does it.
    """
    names, tracker = list(names), Tracker(progress, cancel)
    tracker.plan(Stage.MEASURE, measuring_steps(bundle, names, _recorded_costs(bundle, store, names, setup)))
    with _measuring(store, tracker):
        costs = _measure(bundle, store, names, setup, tracker, clock)
    tracker.finish()
    return costs


def find_unmeasured(bundle: Bundle, store: Store, names: Iterable[str], setup: Setup) -> list[str]:
    """The engines without valid costs."""
    return list(_known_costs(bundle, store, names, setup)[1])


def measuring_steps(bundle: Bundle, names: Sequence[str], costs: Mapping[str, EngineCost] | None = None) -> list[Step]:
    """Loading each of these engines a few times, then timing all of them in turns.

    costs: earlier measurements, if the engines have any.
    """
    if not names:
        return []
    known, steps, calls_s = costs or {}, [], 0.0
    for name in names:
        cost = known.get(name)
        expected_s = None if cost is None else _LOADS * cost.load.median_ms / 1000
        calls_s += 0.0 if cost is None else (_WARM_UP + _CALLS) * cost.call.median_ms / 1000
        steps.append(Step(stage=Stage.MEASURE, engine=name, expected_s=expected_s, size=work_size(bundle, name, Stage.MEASURE)))
    all_known, size = len(known) == len(names), sum(step.size for step in steps)
    return [*steps, Step(stage=Stage.MEASURE, engine=None, expected_s=min(calls_s, 2 * _LIMIT_S) if all_known else None, size=size)]


def _recorded_costs(bundle: Bundle, store: Store, names: Iterable[str], setup: Setup) -> dict[str, EngineCost]:
    """Valid costs by engine name, of those engines that have them."""
    found = dict[str, EngineCost]()
    for name in names:
        with suppress(EngineError):
            found[name] = read_cost(bundle, store, name, setup)
    return found


def measure_missing(bundle: Bundle, store: Store, names: Iterable[str], setup: Setup, tracker: Tracker) -> dict[str, float]:
    """Measure the engines without valid costs; returns the median of a call, in milliseconds, of each engine.

    Costs that were measured under another condition are valid.
    """
    names = list(names)
    costs, missing = _known_costs(bundle, store, names, setup)
    if not missing:
        return costs
    with _measuring(store, tracker):
        costs, missing = _known_costs(bundle, store, names, setup)  # the process that had the lock may have measured them
        for name, problem in list(missing.items())[:1]:
            if (store.folder / engine_key(bundle, name, setup).digest / COSTS).exists():  # it takes seconds, so say why
                _log.warning("measuring again: %s", problem)
        measured = _measure(bundle, store, missing, setup, tracker, limit_s=_FIRST_LIMIT_S, repeats=_FIRST_LOADS) if missing else []
    return costs | {cost.engine: cost.call.median_ms for cost in measured}


def _measuring(store: Store, tracker: Tracker) -> AbstractContextManager[None]:
    return store.lock(_MEASURING, poll=tracker.poll, on_wait=lambda: _log.warning("waiting for another process that is measuring"))


def _measure(
    bundle: Bundle,
    store: Store,
    names: Iterable[str],
    setup: Setup,
    tracker: Tracker,
    clock: Clock = time.perf_counter,
    limit_s: float = _LIMIT_S,
    repeats: int = _LOADS,
) -> list[EngineCost]:
    tool, stored, condition = setup.tool(), {name: _stored(bundle, store, name, setup) for name in names}, setup.condition()
    opened: dict[str, _Opened] = {}
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for name, entry in stored.items():
            tracker.start(Stage.MEASURE, name)
            is_large, spec = entry.size_bytes > _LARGE_BYTES, setup.spec(bundle, name)
            loads = _time_loads(tool, store, entry, spec, clock, 0 if is_large else repeats - 1)
            give_back_memory()
            with ExitStack() as own:
                with _watched_memory() as found:
                    engine, load_ms = _load(tool, store, entry, spec, clock)
                    call = example_call(own.enter_context(engine), bundle, name, setup)
                    start = clock()
                    call()
                    first_ms = (clock() - start) * 1e3
                    call()  # some libraries plan their memory in the first run and allocate it in the second
                opened[name] = _Opened(call, first_ms, [*loads, load_ms], found.describe(engine.resident_bytes))
                if is_large:
                    times |= _time_in_turns({name: call}, clock, limit_s)
                else:
                    stack.push(own.pop_all())
        tracker.start(Stage.MEASURE, None)
        times |= _time_in_turns({name: each.call for name, each in opened.items() if name not in times}, clock, limit_s, tracker.tick)
    return [
        _keep(store, name, stored[name], condition, times[name], each.added_ms(times[name]), each.memory) for name, each in opened.items()
    ]


@dataclass(frozen=True, slots=True)
class _Opened:
    """An engine that was loaded, and called once."""

    call: Callable[[], object]
    first_ms: float
    loads_ms: list[float]
    memory: tuple[int | None, int | None]

    def added_ms(self, times_ms: list[float]) -> list[float]:
        """What loading costs: a first call, which touches all weights, takes longer than those of `times_ms`."""
        slower_ms = max(self.first_ms - float(np.median(times_ms)), 0.0)
        return [ms + slower_ms for ms in self.loads_ms]


def summarize(times_ms: list[float]) -> CallCost:
    """Median, 95th percentile and quartile distance of measured times."""
    low, median, high, p95 = (float(value) for value in np.percentile(times_ms, [25, 50, 75, 95]))
    return CallCost(median_ms=median, p95_ms=p95, spread_ms=high - low, calls=len(times_ms))


def _time_in_turns(
    calls: Mapping[str, Callable[[], object]], clock: Clock, limit_s: float = _LIMIT_S, tick: Callable[[float], object] = lambda _: None
) -> dict[str, list[float]]:
    """Milliseconds of each call by engine; tick: called before each turn with the share of all turns that are done."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    begin, most_ms = clock(), 1e3 * max(limit_s, _OWN_LIMIT_S)
    for turn in range(_WARM_UP + _CALLS):
        if turn >= _WARM_UP + _LEAST_CALLS and clock() - begin > limit_s:
            break
        tick(turn / (_WARM_UP + _CALLS))
        for name, call in calls.items():
            if turn >= _FEWEST_CALLS and sum(times[name]) > most_ms:
                continue
            start = clock()
            call()
            times[name].append((clock() - start) * 1e3)
    return {name: found[min(_WARM_UP, int(_WARM_UP_SHARE * len(found))) :] for name, found in times.items()}


def _load(tool: Backend, store: Store, stored: StoredEngine, spec: BuildSpec, clock: Clock) -> tuple[Engine, float]:
    """The engine, and how many milliseconds opening it took; checking its hashes is part of it."""
    start = clock()
    checked = store.find(stored.key)
    engine = tool.open((checked or stored).path, spec, stored.key)
    return engine, (clock() - start) * 1e3


def _time_loads(tool: Backend, store: Store, stored: StoredEngine, spec: BuildSpec, clock: Clock, repeats: int) -> list[float]:
    """Milliseconds of opening the engine, so many times."""
    times = []
    for _ in range(repeats):
        engine, ms = _load(tool, store, stored, spec, clock)
        engine.close()
        times.append(ms)
    return times


@dataclass
class _Memory:
    """Memory of this process before and after some work."""

    before: int | None = None
    after: int | None = None
    peak: int | None = None

    def describe(self, least_bytes: int) -> tuple[int | None, int | None]:
        """Bytes that the work added, and the most that it had in between; at least those of the engine's files.

        None where the system does not say.
        """
        if self.before is None or self.after is None:
            return None, None
        added = max(self.after - self.before, least_bytes)
        return added, added if self.peak is None else max(self.peak - self.before, added)


@contextmanager
def _watched_memory() -> Iterator[_Memory]:
    """Fills in the memory at the start and end of the block, and the most in between where the system can say it."""
    found = _Memory(before=resident_bytes())
    has_peak = restart_peak()
    yield found
    found.after = resident_bytes()
    found.peak = peak_bytes() if has_peak else None


def example_call(engine: Engine, bundle: Bundle, name: str, setup: Setup) -> Callable[[], object]:
    """One call as generating makes it, on the example inputs: outputs back in host memory, which also waits for the device."""
    _, component, graph, _ = EngineName.parse(name)
    arrays = example_feeds(bundle, bundle.graph_path(component, graph), dict(setup.spec(bundle, name).shapes))
    feeds = {key: engine.to_device(array) for key, array in arrays.items()}
    return lambda: [engine.to_host(value) for value in engine.run(feeds).values()]


def _stored(bundle: Bundle, store: Store, name: str, setup: Setup) -> StoredEngine:
    key = engine_key(bundle, name, setup)
    stored = store.peek(key)
    if stored is None or stored.quarantined:
        error = EngineError("there is no such engine to measure", reason=Reason.MISSING, path=store.folder)
        raise locate(error, bundle, name, key, setup.threads)
    return stored


def _known_costs(bundle: Bundle, store: Store, names: Iterable[str], setup: Setup) -> tuple[dict[str, float], dict[str, EngineError]]:
    """Medians of the engines with valid costs, and why the others have none."""
    costs, missing = dict[str, float](), dict[str, EngineError]()
    for name in names:
        try:
            costs[name] = read_cost(bundle, store, name, setup).call.median_ms
        except EngineError as error:
            missing[name] = error
    return costs, missing


def _keep(
    store: Store,
    name: str,
    stored: StoredEngine,
    condition: Condition,
    times: list[float],
    loads: list[float],
    memory: tuple[int | None, int | None],
) -> EngineCost:
    cost = EngineCost(
        engine=name,
        digest=stored.digest,
        condition=condition,
        call=summarize(times),
        load=summarize(loads),
        memory_bytes=memory[0],
        peak_bytes=memory[1],
    )
    write_cost(store, stored, cost)
    return cost
