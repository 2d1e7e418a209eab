"""The check an engine passes before it is used: it matches the reference, and it is not slower than the unoptimised graph or than the
engine it replaces."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.backends.engine import Engine

Clock = Callable[[], float]
"""Seconds from some fixed moment."""

_TOLERANCE = {"float32": 2e-3, "float16": 3e-2, "bfloat16": 6e-2, "int8": 6e-2}
"""Largest error, relative to the size of the reference output, by the precision that is computed in. int8: products of int8 weights and of
values that are rounded to 8 bits in blocks."""
_LEVELS = {"float32": 1.0, "float16": 4.0, "bfloat16": 8.0, "int8": 8.0}
"""Largest error of integer outputs such as pixels."""
_SLOWER, _SLOWER_MS = 1.6, 2.0
"""An engine is slow if it takes this many times as long as the unoptimised graph, and this many milliseconds more."""
_ROUNDS, _MORE_ROUNDS, _MORE_S = 3, 20, 10.0
"""Timed calls of each engine, and how many before one is judged slow, since another process may have used the processor; no more than
the first ones once they have taken so many seconds."""
_LONG_MS = 1000.0
"""A call of the unoptimised graph that takes longer is its only one, and the engine is called again only if it seems to be slow."""
_PASSES, _PASS_TURNS, _PASS_S = 3, 10, 0.5
"""Timing passes of a race between two engines; a pass ends after so many calls of each, or so long."""
_IMAGE_VALUES = 192
"""An output of bytes with at least this many is an image: 8x8 pixels."""
_RACE_SLOWER = 1.05
"""An engine loses a race where it takes more than this many times as long in every pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Error, times, and why the engine must not be used."""

    max_abs_error: float
    tolerance: float
    engine_ms: float
    reference_ms: float
    problem: str | None

    def to_json(self) -> dict[str, float]:
        names = ("max_abs_error", "tolerance", "engine_ms", "reference_ms")
        return {name: round(getattr(self, name), 9) for name in names if np.isfinite(getattr(self, name))}


@dataclass(frozen=True, slots=True)
class Reference:
    """The unoptimised graph, called once."""

    outputs: Mapping[str, npt.NDArray[Any]]
    first_ms: float
    call: Callable[[], object]
    """Calls it again; not used where a call is long."""

    @classmethod
    def run(cls, call: Callable[[], Mapping[str, npt.NDArray[Any]]], clock: Clock = time.perf_counter) -> Reference:
        start = clock()
        outputs = call()
        return cls(outputs, (clock() - start) * 1e3, call)

    @property
    def is_long(self) -> bool:
        """Whether a call takes so long that this one has to do: the graph may be closed, as its engine needs the memory."""
        return self.first_ms > _LONG_MS


def check_engine(
    engine: Engine,
    feeds: Mapping[str, npt.NDArray[Any]],
    reference: Reference,
    precision: str,
    clock: Clock = time.perf_counter,
) -> GateResult:
    """Compare an engine with its reference, on the same feeds, in numbers and in time."""
    on_device = {name: engine.to_device(array) for name, array in feeds.items()}
    start = clock()
    results = engine.run(on_device)
    first_ms = (clock() - start) * 1e3
    found = {name: engine.to_host(value) for name, value in results.items()}
    error, tolerance, problem = compare(reference.outputs, found, precision)
    engine_ms, reference_ms = _race(lambda: engine.run(on_device), first_ms, reference, clock)
    if problem is None and _is_slow(engine_ms, reference_ms):
        problem = f"it is slow: {engine_ms:.1f} ms a call, the unoptimised graph takes {reference_ms:.1f} ms"
    return GateResult(max_abs_error=error, tolerance=tolerance, engine_ms=engine_ms, reference_ms=reference_ms, problem=problem)


@dataclass(frozen=True, slots=True)
class Race:
    """Two engines of one graph, timed in turns: the best times of each pass, in milliseconds."""

    engine_ms: tuple[float, ...]
    other_ms: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times as long the engine takes as the other."""
        return min(self.engine_ms) / min(self.other_ms)

    @property
    def is_lost(self) -> bool:
        """Whether the engine was slower than the other in every pass: a single pass may have been disturbed."""
        return all(ours > _RACE_SLOWER * theirs for ours, theirs in zip(self.engine_ms, self.other_ms, strict=True))


def run_race(engine: Callable[[], object], other: Callable[[], object], clock: Clock = time.perf_counter) -> Race:
    """Three timing passes of both calls in turns, after one of each to warm up."""
    engine()
    other()
    passes = [_run_pass(engine, other, clock) for _ in range(_PASSES)]
    return Race(tuple(ours for ours, _ in passes), tuple(theirs for _, theirs in passes))


def _run_pass(engine: Callable[[], object], other: Callable[[], object], clock: Clock) -> tuple[float, float]:
    begin, best = clock(), [np.inf, np.inf]
    for turn in range(_PASS_TURNS):
        if turn and clock() - begin > _PASS_S:
            break
        for index, call in enumerate((engine, other)):
            start = clock()
            call()
            best[index] = min(best[index], (clock() - start) * 1e3)
    return best[0], best[1]


def compare(
    expected: Mapping[str, npt.NDArray[Any]], found: Mapping[str, npt.NDArray[Any]], precision: str
) -> tuple[float, float, str | None]:
    """Largest error over all outputs, the tolerance it was held to, and what is wrong, if anything."""
    worst, allowed, problem = 0.0, _TOLERANCE[precision], None
    for name, want in expected.items():
        have = found.get(name)
        if have is None or have.shape != want.shape or have.dtype != want.dtype:
            return np.inf, allowed, f"output {name} is {_describe(have)}, the graph gives {_describe(want)}"
        if not np.isfinite(have).all():
            return np.inf, allowed, f"output {name} is not finite"
        error = float(np.max(np.abs(have.astype(np.float64) - want.astype(np.float64)), initial=0.0))
        floats = np.issubdtype(want.dtype, np.floating)
        tolerance = _TOLERANCE[precision] * max(1.0, float(np.max(np.abs(want), initial=0.0))) if floats else _LEVELS[precision]
        if problem is None and error > tolerance:
            problem = f"output {name} differs from the reference by {error:.3g}, more than {tolerance:.3g}"
        if error / tolerance >= worst / allowed:
            worst, allowed = error, tolerance
    return worst, allowed, problem


def unusable_output(outputs: Mapping[str, npt.NDArray[Any]]) -> tuple[str, str] | None:
    """The first output that broken weights have made unusable, and what it is: not finite, or an image of one colour.

    Pixels are whole numbers: NaN becomes one of them, the same everywhere.
    """
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            return name, "NaN or infinite"
        if values.dtype == np.uint8 and values.size >= _IMAGE_VALUES and (values == values.flat[0]).all():
            return name, "the same everywhere"
    return None


def _race(engine: Callable[[], object], first_ms: float, reference: Reference, clock: Clock) -> tuple[float, float]:
    """Best time in milliseconds of each, taken in turns so that a busy machine slows both.

    first_ms: time of the engine's first call.
    """
    if reference.is_long:
        return _best_of_few(engine, first_ms, reference.first_ms, clock), reference.first_ms
    begin, best = clock(), [np.inf, np.inf]
    for turn in range(_MORE_ROUNDS):
        if turn >= _ROUNDS and (not _is_slow(*best) or clock() - begin > _MORE_S):
            break
        for index, call in enumerate((engine, reference.call)):
            start = clock()
            call()
            best[index] = min(best[index], (clock() - start) * 1e3)
    return best[0], best[1]


def _best_of_few(engine: Callable[[], object], first_ms: float, reference_ms: float, clock: Clock) -> float:
    """Best time of the engine, in milliseconds: called again only while it seems to be slow."""
    best = first_ms
    for _ in range(_ROUNDS - 1):
        if not _is_slow(best, reference_ms):
            break
        start = clock()
        engine()
        best = min(best, (clock() - start) * 1e3)
    return best


def _is_slow(engine_ms: float, reference_ms: float) -> bool:
    return engine_ms > _SLOWER * reference_ms + _SLOWER_MS


def _describe(array: npt.NDArray[Any] | None) -> str:
    return "missing" if array is None else f"{array.dtype}{list(array.shape)}"
