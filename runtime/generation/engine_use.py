"""What one request does with engines: which of them it needs now, how long loading them took, and how long each run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from costroute_rt.call import Call
from costroute_rt.cost.cost_model import Observed
from costroute_rt.family.engine_set import Phase
from costroute_rt.family.memory import Phases, find_phases
from costroute_rt.family.resources import Resources
from costroute_rt.generation.stopwatch import Stopwatch
from costroute_rt.result import Timings
from costroute_rt.route import Cost

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine


class EngineUse:
    """The engines of one request, with the times that the cost model learns from at its end."""

    def __init__(self, resources: Resources, watch: Stopwatch) -> None:
        """watch: the request's."""
        self._resources, self._watch = resources, watch
        self.lease = resources.engines.lease()
        self._calls: Sequence[Call] = ()
        self._phases: Phases = ()
        self._observed = Observed()
        self._ran: list[tuple[Call, float, bool]] = []
        """Engine runs with their milliseconds, and whether the engine had been loaded for this request; recorded at the end."""
        self._warm: set[str] = set()
        """Engines that were loaded for this request and have run."""

    def get(self, name: str) -> Engine:
        """The engine, loaded within the request if it is not resident."""
        if self.lease.find(name) is not None:
            return self.lease.get(name)
        with self._watch.stage("swap") as lap:
            engine = self.lease.get(name)
        self._resources.costs.record_load(self._observed, name, lap.ms)
        return engine

    def plan_phases(self, calls: Sequence[Call], count: int) -> None:
        """From now on the request goes through the phases of these calls, for `count` images."""
        self._calls, self._phases = calls, find_phases(calls, count)

    def enter_phase(self, *engines: str) -> None:
        """From now on these engines are used, with the others of their phase; those of later phases are needed later."""
        phases = self._phases
        index = next((index for index, names in enumerate(phases) if set(engines) & set(names)), 0)
        keep = tuple(dict.fromkeys([*engines, *(phases[index] if phases else ())]))
        later = tuple(name for names in phases[index + 1 :] for name in names)
        self.lease.phase = Phase(keep, later, self._resources.extra_bytes(self._calls))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the text encoders and the router; the time until other requests release them is a wait."""
        started_s = self._resources.clock()
        with self._resources.reading.held():
            self._watch.waited_ms += (self._resources.clock() - started_s) * 1000
            yield

    def note_run(self, call: Call, ms: float) -> None:
        """Count one run of the call's engine."""
        self._ran.append((call, ms, call.engine in self._observed.loads))

    def done_ms(self) -> float:
        """The time of the runs so far: at most what the predicted cost contains for them."""
        return sum(min(ms, self._resources.costs.expected_ms(call)) for call, ms, _ in self._ran)

    def observe(self, predicted: Cost, timings: Timings, *, spared_ms: float) -> None:
        """Let the cost model learn what the finished request took.

        spared_ms: how much longer it would have taken as it was planned.
        """
        watch, observed = self._watch, self._observed
        for call, ms, is_loaded in self._ran:
            self._record(call, ms, is_loaded)
        own_ms = timings.total_ms - timings.waited_ms - timings.caller_ms + spared_ms
        observed.rows, observed.row_overhead_ms = len(watch.rows_ms), watch.between_rows_ms
        observed.request_overhead_ms = timings.outside_ms - watch.between_rows_ms
        if self.lease.is_current:  # otherwise the times are those of engines that were replaced
            self._resources.costs.observe(predicted, observed, actual_ms=own_ms)

    def _record(self, call: Call, ms: float, is_loaded: bool) -> None:
        """Record the time of a run. Of an engine that was just loaded, the first run is slower, which counts as loading."""
        costs = self._resources.costs
        if not is_loaded:
            costs.record_call(self._observed, call, ms)
        elif call.engine not in self._warm:
            self._warm.add(call.engine)
            costs.record_first_run(self._observed, call, ms)
