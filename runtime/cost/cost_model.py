"""Predicts the milliseconds that the calls of a candidate take on this device, with an upper estimate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from costroute_rt.call import Call, Stage
from costroute_rt.cost.correction import Clock, Correction
from costroute_rt.engines.store.cost import EngineCost
from costroute_rt.route import Cost


@dataclass(slots=True)
class Observed:
    """Profiled and actual milliseconds of a request by key or engine, for `CostModel.observe`."""

    calls: dict[str, tuple[float, float]] = field(default_factory=dict)
    loads: dict[str, tuple[float, float]] = field(default_factory=dict)


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

    def expected_ms(self, call: Call) -> float:
        """Expected time of one run of the call's engine, corrected by observed times."""
        return self._measured[call.engine].call.median_ms * self._scale(call)

    def predict(
        self, calls: Iterable[Call], loads: Iterable[str] = (), instead: Mapping[str, EngineCost] | None = None, *, queue_ms: float = 0.0
    ) -> Cost:
        """The cost of these calls, and of loading the engines named in `loads`, on this device in its current state.

        Calls of the router are part of the overhead. instead: costs by engine name that replace those of the engines in use.
        """
        measured = {**self._measured, **instead} if instead else self._measured
        sums, variance = dict.fromkeys(("text", "swap", "denoise", "decode"), 0.0), 0.0
        timed = (call for call in calls if call.stage != Stage.ROUTE)
        runs = [(call.stage.value, call.times, measured[call.engine].call, self._scale(call)) for call in timed]
        runs += [("swap", 1, measured[engine].load, self._correction.load_factor(engine)) for engine in loads]
        for stage, times, cost, scale in runs:
            sums[stage] += times * cost.median_ms * scale
            # Runs vary independently, so their deviations add in quadrature; the margin covers variation that they share.
            variance += times * ((cost.p95_ms - cost.median_ms) * scale) ** 2
        overhead_ms = self._correction.overhead_ms()
        total_ms = overhead_ms + sum(sums.values())
        return Cost(
            queue_ms=queue_ms,
            overhead_ms=overhead_ms,
            text_ms=sums["text"],
            swap_ms=sums["swap"],
            denoise_ms=sums["denoise"],
            decode_ms=sums["decode"],
            spread_ms=math.sqrt(variance),
            margin_ms=self._correction.margin() * total_ms,
        )

    def record_call(self, observed: Observed, call: Call, actual_ms: float) -> None:
        """Add one run of the call's engine to `observed`."""
        measured_ms, key = self._measured[call.engine].call.median_ms * _work(call), _key(call)
        before = observed.calls.get(key, (0.0, 0.0))
        observed.calls[key] = (before[0] + measured_ms, before[1] + actual_ms)

    def record_load(self, observed: Observed, engine: str, actual_ms: float) -> None:
        """Add the loading of `engine` to `observed`."""
        observed.loads[engine] = (self._measured[engine].load.median_ms, actual_ms)

    def observe(self, predicted: Cost, observed: Observed, *, actual_ms: float, overhead_ms: float) -> None:
        """Learn from a finished request.

        actual_ms: its total time, plus the mean row time for each row that re-planning skipped.
        overhead_ms: its time outside engine calls and loading.
        """
        excess = (actual_ms - predicted.total_ms - predicted.spread_ms) / predicted.total_ms
        self._correction.observe(observed.calls, observed.loads, overhead_ms=overhead_ms, excess=excess)

    def _scale(self, call: Call) -> float:
        """Expected time of a run now, divided by the profiled time."""
        return _work(call) * self._correction.call_factor(_key(call))


def _work(call: Call) -> float:
    """Work of one run relative to the profiled run, which had one text and the usual size."""
    return call.rows * call.area


def _key(call: Call) -> str:
    """Key of a call's observations: each image size and number of texts has its own correction."""
    return f"{call.engine} {_work(call):g}"
