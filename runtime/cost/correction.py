"""Correction of profiled costs by the times observed on the device since then."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from threading import Lock

from costroute_rt.cost.window import LOADED, LONG_S, Clock, Learned, Level, Recent, Window, median, upper

__all__ = ["Clock", "Correction", "Level", "Times"]

Times = Mapping[str, tuple[float, float]]

SHORT_S = 60.0
"""Age up to which images count for the speed of the whole device."""
IMAGES = 3
"""Images that show the speed of the whole device: two of three that are slow, or fast again, count. With five, half as many again were late
beside a program that came and went."""
STALE_S = 2.0
"""Age up to which slow runs may refuse a request. Older ones still guide the choice among candidates that fit, but where nothing fits,
one is tried: refused requests run nothing, so nothing else would show that the load is over."""
PROBE_S, PROBE_MS, LONGEST_PROBE_MS = 0.5, 20.0, 100.0
"""Age of the last observation from which a probe is worth its time, the least time of its runs together (shorter ones may fit a time slice)
and the most time of one run, as the refusal waits for it."""
MISMEASURED = 0.5
"""A call that takes less than this share of its profiled time was profiled while other programs ran, and so were the others."""
PROBES_ONLY_S = 30.0
"""Without an image for so long, probes alone refuse no longer: a probe may be slow where an image is not."""
MARGIN_LOW, MARGIN_HIGH, LOADED_MARGIN_HIGH = 0.02, 0.15, 0.4
MANY_SLOW = 16
"""Slow images after which load lasts, such as that of many requests at once; few may be a surprise that was learned since."""
SLOWEST = 20.0
"""Most that times may differ by load: an image that took even longer was interrupted, as when the process is suspended."""
FACTORS_S = 1.0
"""Seconds for which computed factors are cached; a new observation invalidates them sooner."""
_DEVICE = ""
"""Key of the device's factor among the factors of the engines."""
COVERAGE = 0.98
"""Share of recent images that must have finished within the upper estimate."""


class Correction:
    """Factors from profiled costs to the costs expected now; safe to use from several threads.

    A factor is the product of two running medians of actual over expected time: a long one for each engine (the profile was taken under
    other conditions) and a short one for the whole device (which may be busy or hot now). Through the second, observations of the engines
    in use also correct the others. Beside it stands the usual factor, without the load of the last minutes: what a budget may rest on when
    no slow run was seen lately.

    The margin is how far recent images exceeded their upper estimates, as a share of the prediction: the quantile that split conformal
    prediction takes (Lei et al. 2018, Alg. 2), within fixed limits. Images made under load count only as long as the device is loaded.
    """

    def __init__(self, clock: Clock, *, routing_ms: float = 0.0) -> None:
        """routing_ms: expected time of the router's engines per prompt, which is added to the initial estimate of the overhead."""
        self._clock, self._routing_ms = clock, routing_ms
        self._lock = Lock()
        self._prior = 1.0
        """Factor of an engine of which nothing was observed."""
        self._images: Recent[Times] = Recent(clock, size=IMAGES, max_age_s=SHORT_S)
        self._calls: dict[str, Learned] = {}
        self._loads: dict[str, Learned] = {}
        self._any_load = Learned(clock, self._prior)
        self._excess = Window(clock, size=64, max_age_s=LONG_S, prior=(0.0,) * 16)
        self._loaded_excess = Window(clock, size=64, max_age_s=LONG_S, prior=())
        self._request_ms = Learned(clock, 1.0 + routing_ms)
        self._row_ms = Learned(clock, 0.0)
        self._factors: dict[str, Level] = {}
        self._margins: dict[bool, Level] = {}
        """By whether load is stale; computed anew with the factors."""
        self._factors_until_s = -math.inf
        self._seen_s = self._image_s = self._slow_s = -math.inf
        """Times of the last observation, of the last image, and of the last slow observation."""

    def call_factor(self, engine: str) -> Level:
        """Expected time over measured time, for a call of `engine`."""
        with self._lock:
            return self._factor(engine)

    def load_factor(self, engine: str) -> Level:
        """Expected time over measured time, for making `engine` resident; that of all engines where it was seldom loaded itself."""
        with self._lock:
            found = self._loads.get(engine)
            return (found if found is not None and found.is_sure() else self._any_load).level()

    def overhead_ms(self, rows: int = 0) -> Level:
        """Expected time of a request of so many rows outside engine calls, in milliseconds."""
        with self._lock:
            request, row = self._request_ms.level(), self._row_ms.level()
            return Level(request.now + rows * row.now, request.usual + rows * row.usual)

    def margin(self) -> Level:
        """Safety margin to add to an upper estimate, as a share of the prediction."""
        with self._lock:
            device, is_stale = self._device_factor(), self._is_load_stale()
            if is_stale not in self._margins:
                excess, loaded = self._excess.values(), self._loaded_excess.values()
                lasts, usual = len(loaded) >= MANY_SLOW and not is_stale, _margin(excess)
                now = _margin([*excess, *loaded], LOADED_MARGIN_HIGH if lasts else MARGIN_HIGH) if lasts or device > LOADED else usual
                self._margins[is_stale] = Level(now, min(now, usual))
            return self._margins[is_stale]

    def is_load_stale(self) -> bool:
        """Whether no slow run was seen lately, so that load that was seen before may be over."""
        with self._lock:
            return self._is_load_stale()

    def wants_probe(self) -> bool:
        """Whether nothing was observed for so long that it is worth measuring a call."""
        with self._lock:
            return self._clock() - self._seen_s > PROBE_S

    def observe(self, calls: Times, loads: Times, *, rows: int, row_overhead_ms: float, request_overhead_ms: float, excess: float) -> None:
        """Learn from one request.

        calls, loads: for each engine that ran or was loaded, the profiled and the actual milliseconds, summed over its calls.
        row_overhead_ms, request_overhead_ms: time outside engine calls and loading, in the loop of so many rows and apart from it.
        excess: actual time beyond the upper estimate without its margin, as a share of the prediction; may be negative.
        """
        known = {engine: times for engine, times in calls.items() if times[0] > 0}
        with self._lock:
            is_slow = self._note(known)
            for engine, (measured, actual) in known.items():
                self._learned(self._calls, engine).add(actual / measured)
            for engine, (measured, actual) in loads.items():
                if measured > 0:  # loads do not enter the device's factor: the speed of the disk says nothing about it
                    self._learned(self._loads, engine).add(actual / measured)
                    self._any_load.add(actual / measured)
            self._request_ms.add(request_overhead_ms)
            if rows:
                self._row_ms.add(row_overhead_ms / rows)
            (self._loaded_excess if is_slow else self._excess).add(excess)
            self._factors_until_s = -math.inf

    def observe_probe(self, engine: str, ratio: float) -> None:
        """Learn whether load lasts, from calls of an engine that were run only to measure them. ratio: actual over measured time."""
        with self._lock:
            self._seen_s = self._clock()
            factor, usual = self._factor(engine).now, self._level(engine).usual
            if ratio * LOADED < usual:  # the load lasted so long that it looked usual, or the profile was taken under load
                self._restart(ratio if ratio < MISMEASURED else 1.0)
            if ratio * LOADED < factor or ratio <= LOADED * usual:
                self._forget_load(ratio)
            elif self._seen_s - self._image_s <= PROBES_ONLY_S:
                self._slow_s = self._seen_s

    def forget_load(self) -> None:
        """Drop what was learned under load, because it is over or because other conditions hold now."""
        with self._lock:
            self._forget_load()

    def forget(self, keys: Callable[[str], bool]) -> None:
        """Drop the observations of engines that were replaced, whose keys are those for which `keys` returns True."""
        with self._lock:
            for learned in (self._calls, self._loads):
                for key in [key for key in learned if keys(key)]:
                    del learned[key]
            self._images.drop(lambda calls: any(map(keys, calls)))
            self._factors_until_s = -math.inf

    def _note(self, calls: Times) -> bool:
        """Note the speed of an image that ended now, and return whether it was slow; one at the usual speed ends a load not seen lately."""
        self._seen_s = self._image_s = self._clock()
        actual_ms = sum(actual for _, actual in calls.values())
        expected_ms = sum(measured * self._factor(engine).now for engine, (measured, _) in calls.items())
        usual_ms = sum(measured * self._factor(engine).usual for engine, (measured, _) in calls.items())
        is_slow = actual_ms > LOADED * usual_ms
        if is_slow:
            self._slow_s = self._seen_s
        elif self._is_load_stale() and expected_ms > LOADED * usual_ms:
            self._forget_load()
        if calls:
            self._images.add(calls)
        self._factors_until_s = -math.inf
        return is_slow

    def _is_load_stale(self) -> bool:
        return self._clock() - self._slow_s > STALE_S

    def _restart(self, prior: float) -> None:
        """Drop what was learned of engines. prior: the factor to start from."""
        self._prior = prior
        self._calls.clear()
        self._loads.clear()
        self._any_load = Learned(self._clock, prior)
        self._request_ms = Learned(self._clock, 1.0 + prior * self._routing_ms)

    def _forget_load(self, factor: float = 0.0) -> None:
        """Drop what was learned under load. factor: that of engines now, if one was measured; slower runs are dropped."""
        self._images.drop(lambda _: True)
        self._loaded_excess.drop(lambda _: True)
        for each in self._calls.values():
            each.forget_load(factor)
        for each in (*self._loads.values(), self._any_load, self._request_ms, self._row_ms):
            each.forget_load()
        self._slow_s = -math.inf
        self._factors_until_s = -math.inf

    def _factor(self, engine: str) -> Level:
        device = self._device_factor()
        if engine not in self._factors:
            level = self._level(engine)
            self._factors[engine] = Level(level.now * device, min(level.usual, level.now * device))
        return self._factors[engine]

    def _device_factor(self) -> float:
        """Median over the last images of actual over expected time, with one prior image of factor 1; cached for a while.

        The expected time depends on the long medians, so it is computed anew.
        """
        now_s = self._clock()
        if now_s >= self._factors_until_s:
            factors = [1.0]
            for calls in self._images.values():
                expected_ms = sum(measured * self._level(engine).now for engine, (measured, _) in calls.items())
                factors.append(min(sum(actual for _, actual in calls.values()) / expected_ms, SLOWEST))
            self._factors, self._factors_until_s = {_DEVICE: Level(median(factors), 1.0)}, now_s + FACTORS_S
            self._margins.clear()
        return self._factors[_DEVICE].now

    def _level(self, engine: str) -> Level:
        """What is learned of the engine; for one not used lately, the medians of the others, as they were profiled at the same time."""
        found = self._calls.get(engine)
        if found is not None and found.is_fresh():
            return found.level()
        others = [other.level() for other in self._calls.values() if other.is_fresh()]
        if not others:
            return Level(self._prior, self._prior)
        return Level(median(each.now for each in others), median(each.usual for each in others))

    def _learned(self, known: dict[str, Learned], engine: str) -> Learned:
        return known.setdefault(engine, Learned(self._clock, self._prior))


def _margin(excess: list[float], high: float = MARGIN_HIGH) -> float:
    return min(max(upper(excess, COVERAGE), MARGIN_LOW), high)
