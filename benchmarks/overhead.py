"""What the runtime adds to its engines: the time of an image less that of a plain loop over the same engines, and where it goes.

On a machine with other work, calls of the library vary by more than the overhead. The processor time of the calling thread outside them
hardly does, so that is compared too: `outside the library`, less what the plain loop spends there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from benchmarks.peer import NAME, Job, Pixels, psnr_db
from benchmarks.plain_loop import PlainLoop
from benchmarks.scenario import PAUSE_S, Clock, Figure, Measurement, Scenario, Target, median_figure, run_interleaved
from costroute_rt import Result, Runtime

TARGETS = {"overhead": Target(high=1.5), "outside the library": Target(high=1.5), "PSNR to the plain loop": Target(low=99.0)}
"""99 dB is what equal images get."""
_LIBRARY_METHODS = ("run", "run_with_iobinding", "infer")
_MS = 1000.0
T = TypeVar("T")


@dataclass
class Spent:
    """Where the milliseconds of one image went."""

    total_ms: float = 0.0
    outside_ms: float = 0.0
    """Processor time of the calling thread outside calls of the library."""
    library_ms: float = 0.0
    """In calls of the library that run a network."""
    library_cpu_ms: float = 0.0
    """Processor time of the calling thread in these."""
    engines_ms: float = 0.0
    """In `run` of our engines: library calls, checks, inputs and outputs."""
    inputs_ms: float = 0.0
    """Of that, telling the library what to read, copies included."""
    inputs: int = 0
    calls: int = 0
    tokenize_ms: float = 0.0
    route_ms: float = 0.0
    pixels: Pixels | None = None


def measure(runtime: Runtime, job: Job, scenario: Scenario) -> Measurement:
    """The runtime and the plain loop in turn, and the runtime once more with its engines timed inside."""
    plain, image = PlainLoop(runtime, job), partial(make_image, runtime, job)
    calls: dict[str, Callable[[], Spent]] = {
        "plain": partial(spend_plain, plain),
        "ours": partial(_timed, image),
        "inside": partial(spend, runtime, image),
    }
    found = {}
    for name, spent in run_interleaved(calls, warm_up=scenario.warm_up, repeats=scenario.repeats, pause_s=PAUSE_S).items():
        if isinstance(spent, Exception):
            raise spent
        found[name] = spent
    return Measurement(figures=[*summarise(found["ours"], found["plain"]), *break_down(found["inside"], found["plain"])])


def make_image(runtime: Runtime, job: Job) -> Result:
    """One image through the public interface."""
    return runtime.generate(job.prompt, seed=job.seed, candidate=NAME.format(job.num_inference_steps))


def summarise(ours: Sequence[Spent], plain: Sequence[Spent]) -> list[Figure]:
    """Total, plain loop, and their difference: the median over the pairs, as a slower phase of the machine affects both of one."""
    pairs = list(zip(ours, plain, strict=True))
    likeness = min(psnr_db(_pixels(one), _pixels(other)) for one, other in pairs)
    return [
        median_figure("total", [each.total_ms for each in ours], "ms"),
        median_figure("plain loop", [each.total_ms for each in plain], "ms"),
        median_figure("overhead", [one.total_ms - other.total_ms for one, other in pairs], "ms"),
        Figure(name="PSNR to the plain loop", value=likeness, unit="dB"),
    ]


def break_down(images: Sequence[Spent], plain: Sequence[Spent]) -> list[Figure]:
    """Where the time of an image goes that is not spent in networks."""
    parts: Mapping[str, list[float]] = {
        "outside the library": [each.outside_ms - other.outside_ms for each, other in zip(images, plain, strict=True)],
        "in the library": [each.library_ms for each in images],
        "inputs": [each.inputs_ms for each in images],
        "checks and outputs": [each.engines_ms - each.library_ms - each.inputs_ms for each in images],
        "between the calls": [each.total_ms - each.engines_ms for each in images],
        "of that, tokenizing": [each.tokenize_ms for each in images],
        "of that, routing": [each.route_ms for each in images],
    }
    figures = [median_figure(name, values, "ms") for name, values in parts.items()]
    last = images[-1]
    return [
        *figures,
        Figure(name="library calls", value=last.calls, unit="count"),
        Figure(name="inputs set", value=last.inputs, unit="count"),
        median_figure("each input", [1000 * each.inputs_ms / max(each.inputs, 1) for each in images], "us"),
    ]


def spend_plain(loop: PlainLoop) -> Spent:
    """Make one image by the plain loop."""
    started_s, cpu_s = time.perf_counter(), time.thread_time()
    pixels = loop()
    total_ms, cpu_ms = (time.perf_counter() - started_s) * _MS, (time.thread_time() - cpu_s) * _MS
    return Spent(total_ms=total_ms, outside_ms=cpu_ms - loop.library_cpu_ms, pixels=pixels)


def spend(runtime: Runtime, image: Callable[[], Result]) -> Spent:
    """Make one image with the runtime's engines timed inside; the timing itself takes some microseconds for each input and call."""
    spent = Spent()
    with _timing(runtime, spent):
        cpu_s = time.thread_time()
        timed = _timed(image)
        cpu_ms = (time.thread_time() - cpu_s) * _MS
    found = {name: getattr(spent, name) for name in ("library_ms", "engines_ms", "inputs_ms", "inputs", "calls")}
    return replace(timed, **found, outside_ms=cpu_ms - spent.library_cpu_ms)


@contextmanager
def _timing(runtime: Runtime, spent: Spent) -> Iterator[None]:
    """Within the block, library calls of the open engines, their inputs and their runs are added up."""
    engines: list[Any] = [getattr(each, "_engine", each) for each in _open_engines(runtime)]
    requests = [each for engine in engines for each in (getattr(engine, "_request", None), getattr(engine, "_angles", None)) if each]
    setters = [each for each in (*requests, *(getattr(engine, "_binding", None) for engine in engines)) if each is not None]
    with ExitStack() as stack:
        for engine in engines:
            stack.enter_context(_replaced(engine, "run", _adding(engine.run, spent, "engines_ms")))
            if hasattr(engine, "_session"):
                stack.enter_context(_replaced(engine, "_session", _Timed(engine._session, spent)))
        for request in requests:
            stack.enter_context(_replaced(request, "raw", _Timed(request.raw, spent)))
        for setter in setters:
            stack.enter_context(_replaced(setter, "set", _adding(setter.set, spent, "inputs_ms", "inputs")))
        yield


def _open_engines(runtime: Runtime) -> list[Any]:
    engines = runtime._resources.engines
    return [engines.get(name) for name in engines.resident()]


class _Timed:
    """A library's object whose runs are timed."""

    def __init__(self, inner: Any, spent: Spent) -> None:
        self._inner, self._spent = inner, spent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in _LIBRARY_METHODS:
            return found
        timed = _adding(found, self._spent, "library_ms", "calls")
        return _adding(timed, self._spent, "library_cpu_ms", clock=time.thread_time)


def _adding(
    call: Callable[..., T], spent: Spent, times: str, count: str | None = None, *, clock: Clock = time.perf_counter
) -> Callable[..., T]:
    """The call, whose duration is added to one field of `spent`, and 1 to another."""

    def run(*args: Any, **kwargs: Any) -> T:
        started_s = clock()
        try:
            return call(*args, **kwargs)
        finally:
            setattr(spent, times, getattr(spent, times) + (clock() - started_s) * _MS)
            if count is not None:
                setattr(spent, count, getattr(spent, count) + 1)

    return run


@contextmanager
def _replaced(holder: Any, name: str, value: object) -> Iterator[None]:
    former, was_own = getattr(holder, name), name in vars(holder)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if was_own:
            setattr(holder, name, former)
        else:
            delattr(holder, name)


def _timed(image: Callable[[], Result]) -> Spent:
    started_s = time.perf_counter()
    result = image()
    total_ms, timings = (time.perf_counter() - started_s) * _MS, result.timings
    return Spent(total_ms=total_ms, tokenize_ms=timings.tokenize_ms, route_ms=timings.route_ms, pixels=result.pixels[0])


def _pixels(spent: Spent) -> Pixels:
    assert spent.pixels is not None
    return spent.pixels
