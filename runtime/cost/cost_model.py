"""Costs: how many milliseconds a candidate takes on this device, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from costroute_rt.cost.correction import Clock, Correction
from costroute_rt.engines.store.cost import CallCost, EngineCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The engine calls that one candidate needs for one request."""

    encode: str
    """Names of engines, as `EngineSet` has them."""
    text_calls: int
    step: str
    rows: int
    decode: str
    condition: str | None = None
    """The engine for what the denoiser makes of the text alone, called once; None where its steps do all of it."""
    passes: int = 1
    """Texts in that call: 2 with guidance."""
    batches: tuple[int, ...]
    """Images in each batch; a batch is `rows` calls of `step`, then one of `decode`."""
    loads: tuple[str, ...] = ()
    """Engines that are not resident."""
    area: float = 1.0
    """Pixels of one image over those of the size at which costs were measured: the bundle's, or the engines' own."""

    @property
    def engines(self) -> tuple[str, ...]:
        """Every engine that is called, in that order."""
        return tuple(name for name in (self.encode, self.condition, self.step, self.decode) if name is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Predicted milliseconds of a request, by stage."""

    overhead_ms: float
    """Tokenizing, routing, and the host's share of the loop."""
    text_ms: float
    swap_ms: float
    denoise_ms: float
    decode_ms: float
    spread_ms: float = 0.0
    """From the sum to its 95th percentile, from the spread of single calls."""
    margin_ms: float = 0.0
    """What recent images needed beyond that."""

    @property
    def total_ms(self) -> float:
        """The middle estimate."""
        return self.overhead_ms + self.text_ms + self.swap_ms + self.denoise_ms + self.decode_ms

    @property
    def p95_ms(self) -> float:
        """The upper estimate, which a budget is compared with: 95 images of 100, or more, take no longer."""
        return self.total_ms + self.spread_ms + self.margin_ms

    def to_json(self) -> dict[str, float]:
        """Every stage and both estimates, in milliseconds."""
        stages = {name: getattr(self, name) for name in ("overhead_ms", "text_ms", "swap_ms", "denoise_ms", "decode_ms")}
        return {name: round(value, 3) for name, value in {**stages, "total_ms": self.total_ms, "p95_ms": self.p95_ms}.items()}


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    engine: str
    calls: int
    cost: CallCost
    scale: float
    """From the cost as measured to the cost of a call now."""


@dataclass(slots=True)
class Observed:
    """Actual milliseconds of a request beside those measured before, as `CostModel.observe` takes them."""

    calls: dict[str, tuple[float, float]] = field(default_factory=dict)
    loads: dict[str, tuple[float, float]] = field(default_factory=dict)


class CostModel:
    """Predicts requests from measured calls, and corrects itself by what they took; safe to use from several threads."""

    def __init__(self, measured: Mapping[str, EngineCost], clock: Clock, *, routing_ms: float = 0.0) -> None:
        """routing_ms: what the engines that the router runs take for a prompt."""
        self._measured = dict(measured)
        self._correction = Correction(clock, routing_ms=routing_ms)

    def replace(self, engine: str, cost: EngineCost) -> None:
        """Another engine took the place of the one of that name: what was observed on that one counts no more."""
        self._measured[engine] = cost
        self._correction.forget(lambda key: key == engine or key.startswith(f"{engine} "))

    def batches(self, step: str, count: int) -> tuple[int, ...]:
        """`count` images, each in a call of its own."""
        return (1,) * count

    def expected_ms(self, engine: str, batch: int = 1, area: float = 1.0) -> float:
        """One call, corrected by what was observed."""
        return _call(self._measured[engine], batch).median_ms * area * self._correction.call_factor(_key(engine, batch, area))

    def predict(self, work: Work, instead: Mapping[str, EngineCost] | None = None) -> Cost:
        """The cost of `work` on this device as it is now.

        instead: costs by engine name, of engines that are not in use but might be.
        """
        stages = self._stages(work, {**self._measured, **instead} if instead else self._measured)
        sums = dict.fromkeys(("text", "swap", "denoise", "decode"), 0.0)
        for stage in stages:
            sums[stage.name] += stage.calls * stage.cost.median_ms * stage.scale
        # Calls vary independently, so their deviations add in quadrature; what they share is the margin's part.
        variance = sum(stage.calls * ((stage.cost.p95_ms - stage.cost.median_ms) * stage.scale) ** 2 for stage in stages)
        overhead_ms = self._correction.overhead_ms()
        total_ms = overhead_ms + sum(sums.values())
        return Cost(
            overhead_ms=overhead_ms,
            text_ms=sums["text"],
            swap_ms=sums["swap"],
            denoise_ms=sums["denoise"],
            decode_ms=sums["decode"],
            spread_ms=math.sqrt(variance),
            margin_ms=self._correction.margin() * total_ms,
        )

    def record_call(self, observed: Observed, engine: str, actual_ms: float, *, batch: int = 1, area: float = 1.0) -> None:
        """Note in `observed` one more call of `engine`."""
        measured_ms, key = _call(self._measured[engine], batch).median_ms * area, _key(engine, batch, area)
        before = observed.calls.get(key, (0.0, 0.0))
        observed.calls[key] = (before[0] + measured_ms, before[1] + actual_ms)

    def record_load(self, observed: Observed, engine: str, actual_ms: float) -> None:
        """Note in `observed` that `engine` was loaded."""
        observed.loads[engine] = (self._measured[engine].load.median_ms, actual_ms)

    def observe(self, predicted: Cost, observed: Observed, *, actual_ms: float, overhead_ms: float) -> None:
        """Learn from a finished request.

        actual_ms: its time, with the rows that re-planning left out added at the pace of the others.
        """
        excess = (actual_ms - predicted.total_ms - predicted.spread_ms) / predicted.total_ms
        self._correction.observe(observed.calls, observed.loads, overhead_ms=overhead_ms, excess=excess)

    def _stages(self, work: Work, costs: Mapping[str, EngineCost]) -> list[_Stage]:
        def stage(name: str, engine: str, calls: int, batch: int, area: float) -> _Stage:
            factor = self._correction.call_factor(_key(engine, batch, area))
            return _Stage(name, engine, calls, _call(costs[engine], batch), area * factor)

        stages = [stage("text", work.encode, work.text_calls, 1, 1.0)]
        if work.condition is not None:
            stages.append(stage("text", work.condition, 1, work.passes, 1.0))
        for batch in sorted(set(work.batches)):
            times = work.batches.count(batch)
            stages.append(stage("denoise", work.step, times * work.rows, batch, work.area))
            stages.append(stage("decode", work.decode, times, batch, work.area))
        for engine in work.loads:
            stages.append(_Stage("swap", engine, 1, costs[engine].load, self._correction.load_factor(engine)))
        return stages


def _call(cost: EngineCost, batch: int) -> CallCost:
    """Of one call, by what one image takes."""
    return cost.call if batch == 1 else cost.call.scaled(batch)


def _key(engine: str, batch: int, area: float) -> str:
    """What observations of calls are kept under: sizes and batches are corrected apart from each other."""
    return f"{engine} x{batch} {area:g}"
