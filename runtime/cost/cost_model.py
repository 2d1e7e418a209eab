"""Predicts the milliseconds that the calls of a candidate take on this device, with an upper estimate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from costroute_rt.call import Call, Stage
from costroute_rt.cost.correction import LONGEST_PROBE_MS, PROBE_MS, SLOWEST, Correction
from costroute_rt.cost.window import Clock, Level
from costroute_rt.engines.store.cost import CallCost, EngineCost
from costroute_rt.route import Cost


@dataclass(slots=True)
class Observed:
    """What a request took, for `CostModel.observe`: profiled and actual milliseconds by key or engine, and the time outside of them.

    The caller's own time and waiting for other requests belong to none of these.
    """

    calls: dict[str, tuple[float, float]] = field(default_factory=dict)
    loads: dict[str, tuple[float, float]] = field(default_factory=dict)
    rows: int = 0
    """Denoiser calls that were made."""
    row_overhead_ms: float = 0.0
    """Time outside engine calls between the first row and the last, of all rows together."""
    request_overhead_ms: float = 0.0
    """All other time outside engine calls and loading: tokenizing, routing."""


_SHARED = 0.1
"""Share of the measured time below which an engine was not loaded: it was open already."""


class CostModel:
    """Predicts the cost of requests from profiled calls, corrected by observed times; safe to use from several threads."""

    def __init__(self, measured: Mapping[str, EngineCost], clock: Clock, *, routing_ms: float = 0.0) -> None:
        """measured: profiled costs by engine name. routing_ms: time of the router's engines per prompt."""
        self._measured = dict(measured)
        self._correction = Correction(clock, routing_ms=routing_ms)

    def replace(self, engine: str, cost: EngineCost) -> None:
        """Use the cost of another engine of that name, and drop the observations of the engine that it replaced."""
        self._measured[engine] = cost
        self._correction.forget(lambda key: key.partition(" ")[0] == engine)

    def forget_load(self) -> None:
        """Drop what was learned from runs slower than usual: other programs ended, or the device changed its power mode."""
        self._correction.forget_load()

    def memory_bytes(self, engine: str) -> tuple[int | None, int | None]:
        """Memory of an engine once it has run, and while it is loaded; None where it was not measured."""
        cost = self._measured.get(engine)
        return (None, None) if cost is None else (cost.memory_bytes, cost.peak_bytes)

    def expected_ms(self, call: Call) -> float:
        """Expected time of one run of the call's engine, corrected by observed times."""
        return self._profiled_ms(call) * self._correction.call_factor(_key(call)).now

    def runs_ms(self, call: Call) -> float:
        """Expected time of all runs of a call."""
        return call.times * self.expected_ms(call)

    def request_overhead_ms(self) -> float:
        """Expected time of a request outside engine runs and the loop over rows: a part of every predicted cost."""
        return self._correction.overhead_ms().now

    def predict(
        self,
        calls: Iterable[Call],
        loads: Iterable[str] = (),
        instead: Mapping[str, EngineCost] | None = None,
        *,
        queue_ms: float = 0.0,
        queue_spread_ms: float = 0.0,
    ) -> Cost:
        """The cost of these calls, and of loading the engines named in `loads`, on this device in its current state.

        Calls of the router are part of the overhead. instead: costs by engine name that replace those of the engines in use.
        queue_ms, queue_spread_ms: expected wait for other requests, and the distance to its 95th percentile.
        """
        measured, correction = {**self._measured, **instead} if instead else self._measured, self._correction
        timed = [call for call in calls if call.stage != Stage.ROUTE]
        runs = [
            _Run(call.stage.value, call.times, measured[call.engine].call, _work(call), correction.call_factor(_key(call)))
            for call in timed
        ]
        runs += [_Run("swap", 1, measured[engine].load, 1.0, correction.load_factor(engine)) for engine in loads]
        rows = sum(call.times for call in timed if call.stage is Stage.DENOISE)
        overhead_ms, margin = correction.overhead_ms(rows), correction.margin()
        sums = dict.fromkeys(("text", "swap", "encode", "denoise", "decode"), 0.0)
        for run in runs:
            sums[run.stage] += run.median_ms(run.factor.now)
        total_ms = overhead_ms.now + sum(sums.values())
        spread_ms = _spread_ms([(run, run.factor.now) for run in runs])
        usual_ms = overhead_ms.usual + sum(run.median_ms(run.factor.usual) for run in runs)
        idle_ms = usual_ms * (1 + margin.usual) + _spread_ms([(run, run.factor.usual) for run in runs])
        return Cost(
            queue_ms=queue_ms,
            overhead_ms=overhead_ms.now,
            text_ms=sums["text"],
            swap_ms=sums["swap"],
            encode_ms=sums["encode"],
            denoise_ms=sums["denoise"],
            decode_ms=sums["decode"],
            spread_ms=spread_ms,
            queue_spread_ms=queue_spread_ms,
            margin_ms=margin.now * total_ms,
            recent_factor=max((total_ms * (1 + margin.now) + spread_ms) / idle_ms, 1.0) if idle_ms > 0 else 1.0,
            is_load_stale=correction.is_load_stale(),
        )

    def record_call(self, observed: Observed, call: Call, actual_ms: float) -> None:
        """Add one run of the call's engine to `observed`."""
        key = _key(call)
        before = observed.calls.get(key, (0.0, 0.0))
        observed.calls[key] = (before[0] + self._profiled_ms(call), before[1] + actual_ms)

    def record_load(self, observed: Observed, engine: str, actual_ms: float) -> None:
        """Add the loading of `engine` to `observed`, unless another runtime of this process shared it, which takes no time."""
        measured_ms = self._measured[engine].load.median_ms
        if actual_ms >= _SHARED * measured_ms:
            observed.loads[engine] = (measured_ms, actual_ms)

    def record_first_run(self, observed: Observed, call: Call, actual_ms: float) -> None:
        """Add what the first run of an engine that was loaded took longer than later ones to the time of its loading."""
        measured_ms, loaded_ms = observed.loads[call.engine]
        observed.loads[call.engine] = measured_ms, loaded_ms + max(actual_ms - self.expected_ms(call), 0.0)

    def observe(self, predicted: Cost, observed: Observed, *, actual_ms: float) -> None:
        """Learn from a finished request.

        actual_ms: its own time, without waiting and without the caller's, plus the mean row time for each row that re-planning skipped.
        """
        expected_ms = predicted.total_ms - predicted.queue_ms
        self._correction.observe(
            observed.calls,
            observed.loads,
            rows=observed.rows,
            row_overhead_ms=observed.row_overhead_ms,
            request_overhead_ms=observed.request_overhead_ms,
            excess=(actual_ms - expected_ms - predicted.spread_ms) / expected_ms,
        )

    def find_probe(self, plans: Iterable[Sequence[Call]], max_ms: float) -> Call | None:
        """The call to measure after a refusal, if a plan may fit and nothing was observed just now; else None.

        It is the one that takes the most time of the fastest plan, as it shows best how busy the device is, but no decoder of tiles, whose
        inputs are not those of the image size. Run it `times` times, and give `record_probe` the total time.
        plans: the calls of each candidate.
        """
        if not self._correction.wants_probe():
            return None
        timed = [[call for call in plan if call.stage != Stage.ROUTE and self._profiled_ms(call) > 0] for plan in plans]
        fastest = min(filter(None, timed), key=self.profiled_ms, default=[])
        if self.profiled_ms(fastest) > SLOWEST * max_ms:
            return None
        fastest = [call for call in fastest if call.tiles == 1]
        if not fastest:
            return None
        short = [call for call in fastest if self._profiled_ms(call) <= LONGEST_PROBE_MS]
        found = max(short, key=lambda call: self.profiled_ms([call])) if short else min(fastest, key=self._profiled_ms)
        return replace(found, times=math.ceil(PROBE_MS / self._profiled_ms(found)))

    def profiled_ms(self, calls: Iterable[Call]) -> float:
        """Profiled time of these calls, without the router's."""
        return sum(call.times * self._profiled_ms(call) for call in calls if call.stage != Stage.ROUTE)

    def record_probe(self, call: Call, actual_ms: float) -> None:
        """Learn from the runs of a call from `find_probe` whether the device is as slow as expected."""
        self._correction.observe_probe(_key(call), actual_ms / (call.times * self._profiled_ms(call)))

    def _profiled_ms(self, call: Call) -> float:
        """Profiled time of one run."""
        return self._measured[call.engine].call.median_ms * _work(call)


class _Run(NamedTuple):
    """Runs of one engine in a prediction."""

    stage: str
    times: int
    cost: CallCost
    work: float
    factor: Level

    def median_ms(self, factor: float) -> float:
        return self.times * self.cost.median_ms * self.work * factor


def _spread_ms(runs: Iterable[tuple[_Run, float]]) -> float:
    """Distance to the 95th percentile of runs that vary independently; the margin covers variation that they share."""
    return math.sqrt(sum(run.times * ((run.cost.p95_ms - run.cost.median_ms) * run.work * factor) ** 2 for run, factor in runs))


def _work(call: Call) -> float:
    """Work of one run relative to the profiled run, which had one text and the usual size."""
    return call.rows * call.area


def _key(call: Call) -> str:
    """Key of a call's observations: each image size and number of texts has its own correction."""
    return f"{call.engine} {_work(call):g}"
