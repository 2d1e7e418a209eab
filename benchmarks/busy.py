"""Images and budgets while other programs keep the processors busy.

For each backend and condition (0, 1, 2 and 4 busy processes, two that come and go, one that walks through memory) a client asks for images
with budgets between 1.2 and 4 times the time of the fastest candidate on the idle machine, and now and then for the same image without a
budget, whose time shows how much slower the machine is. A rest follows each condition: measured is how soon a budget just above the
fastest candidate's 95th percentile is served again, and whether anything is refused later on that a runtime without a memory of the load
would serve.

Use an idle machine, whose engines were measured when it was idle (`costroute-rt profile`): whatever else runs counts as load.

    python -m benchmarks.busy
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec

import numpy as np

from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, mean_figure, run_scenario
from costroute_rt import BudgetError, Result, Runtime

PROMPTS = ("a red house by a lake at sunset", "three trees on a hill in winter", "a lonely castle", "boats under a bridge at night")
BACKENDS = ("onnxruntime", "openvino")
BUDGETS = tuple(float(each) for each in np.geomspace(1.2, 4.0, 5))
"""Relative to the median time of the fastest candidate on the idle machine."""
EVERY = 3
"""Every so many requests, one has no budget and a fixed candidate."""
WARM_UP, QUICK_WARM_UP = 20, 2
REST_S, QUICK_REST_S = 5.0, 0.2
RECOVERY_TARGET = Target(high=3.0)
LEAST = 1.1
"""Budget after a load, relative to the 95th percentile of the fastest candidate on the idle machine."""
LONGEST_S = 15.0
"""A runtime that has made no image by then counts as locked out."""
REFUSED_PAUSE_S = 0.05
"""Pause of the client after a refusal."""
USED_TARGET, NO_LOCK_OUT = Target(low=0.8), Target(high=0)

BURN = "while True: pass"
COME_AND_GO = """
import random, sys, time
chance = random.Random(int(sys.argv[1]))
while True:
    until = time.monotonic() + chance.uniform(0.5, 3)
    while time.monotonic() < until: pass
    time.sleep(chance.uniform(0.5, 3))
"""
WALK_MEMORY = """
block = bytearray(1 << 30)
view = memoryview(block)
half = len(block) // 2
while True: view[:half] = view[half:]
"""


@dataclass(frozen=True)
class Condition:
    """What else runs."""

    name: str
    program: str = BURN
    processes: int = 0
    seconds: float = 25.0
    targets: Mapping[str, Target] = field(default_factory=dict)


CONDITIONS = (
    Condition("idle", targets={"budgets met": Target(low=0.99), "budget used then": USED_TARGET}),
    Condition("1 busy process", processes=1, targets={"slowdown": Target(high=1.15)}),
    Condition("2 busy processes", processes=2),
    Condition("4 busy processes", processes=4, targets={"slowdown": Target(high=3.2)}),
    Condition(
        "2 that come and go",
        program=COME_AND_GO,
        processes=2,
        seconds=40.0,
        targets={"budgets met": Target(low=0.97), "budget used then": USED_TARGET},
    ),
    Condition("1 that walks through memory", program=WALK_MEMORY, processes=1),
)
QUICK_S = 0.5


@dataclass
class Tally:
    """What happened under one condition."""

    fixed_ms: dict[str, list[float]] = field(default_factory=dict)
    """Times of images without a budget, by candidate."""
    results: list[Result] = field(default_factory=list)
    """Images with a budget."""
    refused: Counter[str] = field(default_factory=Counter)
    """By reason."""
    recovery_s: float = 0.0
    """From the end of the load to the first image within the smallest budget that was served before."""
    lock_outs: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("busy", __doc__ or "")
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, help="backends to measure (default: those that are installed)")
    parser.add_argument("--seconds", type=float, help="length of each condition (default: 25, of those that come and go 40)")
    args = parser.parse_args(argv)
    return run_benchmark("busy", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per backend and condition."""
    outcomes = []
    for backend in args.backend or [name for name in BACKENDS if find_spec(name) is not None]:
        tallies, fastest_ms = dict[str, Tally](), list[float]()
        opened = run_scenario(Scenario(name=backend), partial(_observe_all, args, backend, tallies, fastest_ms))
        for condition in CONDITIONS:
            settings = {
                "backend": backend,
                "processes": condition.processes,
                "seconds": args.seconds or condition.seconds,
                "budgets": list(BUDGETS),
            }
            targets = {**condition.targets, "served again": RECOVERY_TARGET, "lock-outs": NO_LOCK_OUT}
            scenario = Scenario(name=f"{backend}: {condition.name}", settings=settings, targets=targets)
            if opened.error is None:
                outcomes.append(run_scenario(scenario, partial(_summarise, tallies[condition.name], tallies["idle"], fastest_ms[0])))
            else:
                outcomes.append(Outcome(scenario=scenario, error=opened.error))
    return outcomes


def _observe_all(args: argparse.Namespace, backend: str, tallies: dict[str, Tally], fastest_ms: list[float], _: Scenario) -> Measurement:
    """Fill in what happens under each condition, and the time of the fastest candidate before."""
    opened = partial(Runtime.open, args.bundle, home=args.home, backend=backend, build=True)
    with opened() as runtime:
        fixed = fixed_candidates(runtime)
        times = {name: [_make(runtime, name) for _ in range(QUICK_WARM_UP if args.quick else WARM_UP)] for name in fixed}
        fastest_ms.append(float(np.median(times[fixed[0]])))
        client = Client(runtime, opened, fixed, [each * fastest_ms[0] for each in BUDGETS])
        for condition in CONDITIONS:
            seconds = QUICK_S if args.quick else args.seconds or condition.seconds
            log(f"  {condition.name}, {seconds:g} s")
            tallies[condition.name] = client.observe(condition, seconds, QUICK_REST_S if args.quick else REST_S)
    return Measurement(figures=())


def fixed_candidates(runtime: Runtime) -> list[str]:
    """Names of the fastest candidate and of the one in the middle, by predicted time."""
    options = sorted(runtime.route(PROMPTS[0]).options, key=lambda each: each.ms)
    return [options[0].candidate.name, options[len(options) // 2].candidate.name]


def _make(runtime: Runtime, candidate: str) -> float:
    """Milliseconds of an image."""
    return runtime.generate(PROMPTS[0], seed=1, candidate=candidate).actual_ms


class Client:
    """Asks for one image after the other."""

    def __init__(self, runtime: Runtime, opened: Callable[[], Runtime], fixed: Sequence[str], budgets_ms: Sequence[float]) -> None:
        """opened: opens the same runtime once more. fixed: candidates of images without a budget.

        Call it on the idle machine, after some images.
        """
        self._runtime, self._open, self._fixed, self._budgets_ms = runtime, opened, fixed, budgets_ms
        self._asked = 0
        self._least_ms = LEAST * min(each.p95_ms for each in runtime.route(PROMPTS[0]).options)

    def observe(self, condition: Condition, seconds: float, rest_s: float) -> Tally:
        """Ask for so long under a condition, then rest."""
        tally = Tally()
        with busy_processes(condition.program, condition.processes) as others:
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s or not tally.fixed_ms.keys() >= set(self._fixed):
                self._ask(tally)
            if any(other.poll() is not None for other in others):
                raise RuntimeError("a busy process ended by itself")
        self._rest(tally, rest_s)
        return tally

    def _ask(self, tally: Tally) -> None:
        self._asked += 1
        number, turn = divmod(self._asked, EVERY)
        if turn == 0:
            name = self._fixed[number % len(self._fixed)]
            tally.fixed_ms.setdefault(name, []).append(_make(self._runtime, name))
            return
        try:
            tally.results.append(self._generate(self._budgets_ms[self._asked % len(self._budgets_ms)]))
        except BudgetError as error:
            tally.refused[error.reason.value if error.reason else "unknown"] += 1
            time.sleep(REFUSED_PAUSE_S)

    def _generate(self, max_ms: float) -> Result:
        return self._runtime.generate(PROMPTS[self._asked % len(PROMPTS)], seed=self._asked, max_ms=max_ms)

    def _rest(self, tally: Tally, rest_s: float) -> None:
        """After the load: ask with the budget that served before. Later refusals of what the other runtime would serve are lock-outs."""
        began_s, served_s, since_s = time.monotonic(), list[float](), 0.0
        while since_s < rest_s or not (served_s or since_s > LONGEST_S):
            try:
                self._generate(self._least_ms)
                served_s.append(time.monotonic() - began_s)
            except BudgetError:
                tally.lock_outs += since_s > RECOVERY_TARGET.high and self._would_serve(self._least_ms)
                time.sleep(REFUSED_PAUSE_S)
            since_s = time.monotonic() - began_s
        tally.recovery_s = min(served_s, default=since_s)

    def _would_serve(self, max_ms: float) -> bool:
        """Whether a runtime that knows nothing of load makes the image in time."""
        with self._open() as unaware:
            try:
                return unaware.generate(PROMPTS[0], seed=self._asked, max_ms=max_ms).met is True
            except BudgetError:
                return False


def _summarise(tally: Tally, idle: Tally, fastest_ms: float, _: Scenario) -> Measurement:
    """Figures of one condition."""
    slowdowns = [float(np.median(tally.fixed_ms[name]) / np.median(idle.fixed_ms[name])) for name in tally.fixed_ms]
    met = [result for result in tally.results if result.met]
    improvable = [result for result in met if has_better(result)]
    asked, refused = len(tally.results) + tally.refused.total(), tally.refused.total()
    changed = [float(result.made[0] != result.route.chosen or bool(result.skipped[0])) for result in tally.results]
    means = {
        "budgets met": ("share", [float(result.met is True) for result in tally.results]),
        "a better one would have fitted": ("share", [float(result in improvable) for result in met]),
        "budget used then": ("share", list(map(used, improvable))),
        "budget used": ("share", list(map(used, met))),
        "changed on the way": ("share", changed),
        "expected quality": ("score", [result.route.find(result.made[0].name).quality for result in tally.results]),
    }
    figures = [
        Figure(name="slowdown", value=float(np.mean(slowdowns)), unit="ratio"),
        Figure(name="refused", value=refused / max(asked, 1), unit="share"),
        *(mean_figure(name, values, unit) for name, (unit, values) in means.items() if values),
        Figure(name="served again", value=tally.recovery_s, unit="s"),
        Figure(name="lock-outs", value=tally.lock_outs, unit="count"),
    ]
    notes = {
        "images": str(len(tally.results)),
        "refused because": ", ".join(f"{reason} {count}" for reason, count in tally.refused.most_common()) or "-",
        "fastest, idle": f"{fastest_ms:.0f} ms",
    }
    return Measurement(figures=figures, notes=notes)


def used(result: Result) -> float:
    """Share of the budget that an image took."""
    return result.actual_ms / (result.route.max_ms or np.inf)


def has_better(result: Result) -> bool:
    """Whether a better candidate would have fitted: its 95th percentile, had it been as much slower than expected as the image was."""
    made, max_ms = result.route.find(result.made[0].name), result.route.max_ms
    slowdown = result.actual_ms / made.ms
    return max_ms is not None and any(each.quality > made.quality and slowdown * each.p95_ms <= max_ms for each in result.route.options)


@contextmanager
def busy_processes(program: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that run a Python program until the block ends, each with its number as its argument."""
    running = [subprocess.Popen([sys.executable, "-S", "-c", program, str(number)]) for number in range(count)]
    try:
        yield running
    finally:
        for each in running:
            each.kill()
            each.wait()


if __name__ == "__main__":
    sys.exit(main())
