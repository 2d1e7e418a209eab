"""How soon a runtime serves again after other programs kept the processors busy.

A client asks for images with a budget just above what the fastest candidate needs on the idle machine. Six busy processes run beside it for
six seconds, while nearly everything is refused or late; then they end. Measured is the time from their end to the first image that was
asked for since. Use an idle machine: whatever else runs counts as load.

    python -m benchmarks.busy
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, median_figure, run_scenario
from costroute_rt import BudgetError, Runtime

PROMPT = "a red house by a lake at sunset"
PROCESSES, BUSY_S, REPEATS = 6, 6.0, 5
QUICK_PROCESSES, QUICK_BUSY_S = 2, 0.5
BUDGETS, PAUSES_S = (1.1, 2.0), (0.0, 1.0)
"""Budget relative to the fastest candidate's 95th percentile on the idle machine, and pause of the client between two requests."""
WARM_UP, REST_S = 10, 3.0
"""Images before the budget is chosen, and time between two repeats, in which the client goes on."""
SERVED_TARGET = Target(high=3.0)
LONGEST_S = 15.0
"""A runtime that has made no image by then counts as locked out."""
BURN = "import sys, time\nuntil = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < until: pass"


@dataclass
class Tally:
    """What happened to the requests of one phase."""

    images: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By reason."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("busy", __doc__ or "")
    args = parser.parse_args(argv)
    return run_benchmark("busy", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per budget and client."""
    processes, busy_s, repeats = (QUICK_PROCESSES, QUICK_BUSY_S, 1) if args.quick else (PROCESSES, BUSY_S, REPEATS)
    scenarios = [
        Scenario(
            name=f"{budget:g} times p95, {f'asks every {pause_s:g} s' if pause_s else 'asks at once'}",
            settings={"budget": budget, "pause_s": pause_s, "processes": processes, "busy_s": busy_s},
            warm_up=WARM_UP,
            repeats=repeats,
            targets={"served again, slowest": SERVED_TARGET},
        )
        for budget in BUDGETS
        for pause_s in PAUSES_S
    ]
    return [run_scenario(scenario, partial(measure, args)) for scenario in scenarios]


def measure(args: argparse.Namespace, scenario: Scenario) -> Measurement:
    """Each repeat: a busy phase, the time until an image is made, and a rest."""
    settings = scenario.settings
    served_s, busy, after, rest = list[float](), Tally(), Tally(), Tally()
    with Runtime.open(args.bundle, home=args.home, build=True) as runtime:
        for seed in range(scenario.warm_up):
            runtime.generate(PROMPT, seed=seed, candidate=fastest(runtime)[0])
        max_ms = settings["budget"] * fastest(runtime)[1]
        log(f"  budget {max_ms:.0f} ms")
        ask_once = partial(ask, runtime, max_ms, settings["pause_s"])
        for _ in range(scenario.repeats):
            with busy_processes(settings["processes"], settings["busy_s"]) as others:
                while any(other.poll() is None for other in others):
                    ask_once(busy)
            ended_s = time.monotonic()
            while not ask_once(after) and time.monotonic() - ended_s < LONGEST_S:
                pass
            served_s.append(time.monotonic() - ended_s)
            rest_until_s = time.monotonic() + REST_S
            while time.monotonic() < rest_until_s:
                ask_once(rest)
    return Measurement(
        figures=[
            median_figure("served again", served_s, "s"),
            Figure(name="served again, slowest", value=max(served_s), unit="s"),
            Figure(name="budget", value=max_ms, unit="ms"),
            *(Figure(name=f"images {name}", value=each.images, unit="count") for name, each in (("under load", busy), ("at rest", rest))),
        ],
        notes={
            f"refused {name}": ", ".join(f"{reason} {count}" for reason, count in each.refused.most_common()) or "none"
            for name, each in (("under load", busy), ("then", after), ("at rest", rest))
        },
    )


def fastest(runtime: Runtime) -> tuple[str, float]:
    """Name of the fastest candidate and its predicted 95th percentile in milliseconds."""
    option = min(runtime.route(PROMPT).options, key=lambda each: each.p95_ms)
    return option.candidate.name, option.p95_ms


def ask(runtime: Runtime, max_ms: float, pause_s: float, tally: Tally) -> bool:
    """Asks for an image, and waits before the next request, but not after an image; returns whether it was made."""
    try:
        runtime.generate(PROMPT, seed=7, max_ms=max_ms)
    except BudgetError as error:
        tally.refused[error.reason.value if error.reason else "unknown"] += 1
        time.sleep(pause_s)
        return False
    tally.images += 1
    return True


@contextmanager
def busy_processes(count: int, seconds: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that keep a core busy each, for so long."""
    command = [sys.executable, "-S", "-c", BURN, str(seconds)]
    running = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield running
    finally:
        for each in running:
            each.kill()
            each.wait()


if __name__ == "__main__":
    sys.exit(main())
