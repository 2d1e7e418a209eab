"""What a long-lived process keeps: memory, threads and files after thousands of images, openings, cancelled streams and jobs.

Each scenario is a process of its own, on Linux. Its memory is read after garbage collection and after freed memory was given back to the
system, as the library does when a runtime is closed. Growth counts from the end of the first rounds, which fill caches, to the last.

    python -m benchmarks.endurance
    python -m benchmarks.endurance --scenario images
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import costroute_rt
from benchmarks.cancellation import LONGEST_S, WAYS
from benchmarks.caption import held_out_captions
from benchmarks.open_close import resident_mb
from benchmarks.process import run_process
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, run_scenario
from costroute_rt import CancelledError, Candidate, Request, Runtime
from costroute_rt.engines.machine.memory import give_back_memory

SAMPLES = 20
"""Times that memory is read after the first rounds."""
GROWTH_TARGET, NONE_TARGET = Target(high=5.0), Target(low=0.0, high=0.0)
TARGETS = {"growth": GROWTH_TARGET, "threads left": NONE_TARGET, "files left": NONE_TARGET, "wrong ends": NONE_TARGET}
DATASET, PROMPTS_PER_BAND = "held-out-endurance", 200
BATCH = 10
"""Jobs that are submitted together."""
SETTLE_S = 10.0
"""Time within which threads that end must have ended."""

Round = Callable[[int], int]
"""Does the work of one round, given its number; returns how many requests did not end as they should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What this process holds now."""

    memory_mb: float
    threads: int
    """Those of libraries too."""
    files: int

    @classmethod
    def read(cls) -> Usage:
        """After everything that can be freed was freed."""
        gc.collect()
        give_back_memory()
        return cls(memory_mb=resident_mb(), threads=len(os.listdir("/proc/self/task")), files=len(os.listdir("/proc/self/fd")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one scenario does, and how often."""

    start: Callable[[str, str], Iterator[Round]]
    """A generator, for `contextmanager`, that yields a round and then closes what it opened; takes the bundle and the store."""
    first: int
    """Rounds before growth counts."""
    rounds: int
    quick_rounds: int


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("endurance", __doc__ or "")
    parser.add_argument("--scenario", choices=WORK, action="append", help="run only this one; may be repeated")
    args = parser.parse_args(argv)
    return run_benchmark("endurance", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per kind of work."""
    bundle = args.bundle or costroute_rt.shipped_bundle()
    with tempfile.TemporaryDirectory() as home:
        return [
            run_scenario(scenario, partial(measure, bundle, args.home or home))
            for scenario in make_scenarios(quick=args.quick)
            if args.scenario is None or scenario.name in args.scenario
        ]


def make_scenarios(*, quick: bool) -> list[Scenario]:
    """One per kind of work."""
    scenarios = []
    for name, work in WORK.items():
        first, rounds = (work.quick_rounds // 2, work.quick_rounds) if quick else (work.first, work.rounds)
        scenarios.append(Scenario(name=name, settings={"seed": 0}, warm_up=first, repeats=rounds - first, targets=TARGETS))
    return scenarios


def measure(bundle: Path, home: str | Path, scenario: Scenario) -> Measurement:
    """Runs a scenario in a new process."""
    code = "import sys; from benchmarks.endurance import print_usage; print_usage(*sys.argv[1:])"
    given = (scenario.name, bundle, home, scenario.warm_up, scenario.warm_up + scenario.repeats)
    seen = json.loads(run_process([sys.executable, "-c", code, *map(str, given)]).stdout)
    memory_mb, before, after = seen["memory_mb"], Usage(**seen["before"]), Usage(**seen["after"])
    return Measurement(
        figures=[
            Figure(name="growth", value=memory_mb[-1] - memory_mb[0], unit="MB"),
            Figure(name="highest growth", value=max(memory_mb) - memory_mb[0], unit="MB"),
            Figure(name="memory", value=memory_mb[-1], unit="MB"),
            Figure(name="threads left", value=after.threads - before.threads, unit="count"),
            Figure(name="files left", value=after.files - before.files, unit="count"),
            Figure(name="wrong ends", value=seen["wrong_ends"], unit="count"),
            Figure(name="time", value=seen["time_s"], unit="s"),
        ]
    )


def print_usage(name: str, bundle: str, home: str, first: str, rounds: str) -> None:
    """Does the rounds of one scenario; prints the memory from the end of the first ones on, and usage with every runtime closed."""
    with Runtime.open(bundle, home=home, build=True) as runtime:  # loads the libraries
        runtime.generate("a lake", seed=0)
    before, began_s, wrong_ends = Usage.read(), time.monotonic(), 0
    read_at = [round(int(first) + step * (int(rounds) - int(first)) / SAMPLES) for step in range(SAMPLES + 1)]
    memory_mb = []
    with contextmanager(WORK[name].start)(bundle, home) as do_round:
        for number in range(1, int(rounds) + 1):
            wrong_ends += do_round(number)
            if number in read_at:
                memory_mb.append(Usage.read().memory_mb)
    after = _settle(before.threads)
    seen = {"memory_mb": memory_mb, "before": asdict(before), "after": asdict(after)}
    print(json.dumps({**seen, "wrong_ends": wrong_ends, "time_s": time.monotonic() - began_s}))


def _settle(threads: int) -> Usage:
    """Usage once only so many threads are left, or after some time."""
    until_s = time.monotonic() + SETTLE_S
    while (usage := Usage.read()).threads > threads and time.monotonic() < until_s:
        time.sleep(0.1)
    return usage


def start_images(bundle: str, home: str) -> Iterator[Round]:
    """Images of different prompts: mostly the cheapest candidate, some guided, some of these with one of many negative prompts."""
    prompts = _prompts()
    with Runtime.open(bundle, home=home) as runtime:
        cheapest, guided = _cheapest(runtime.candidates), _cheapest([each for each in runtime.candidates if each.is_guided])

        def generate(number: int) -> int:
            prompt, is_guided = prompts[number % len(prompts)], number % 20 == 0
            negative = prompts[-number % len(prompts)] if number % 40 == 0 else None
            candidate = guided if is_guided else cheapest if number % 5 else None
            max_ms = 60_000 if number % 3 == 0 else None
            result = runtime.generate(
                prompt, seed=number, candidate=candidate, negative_prompt=negative, max_ms=max_ms, lam=0.01, count=1 + (number % 50 == 0)
            )
            return int(len(result.pixels) == 0)

        yield generate


def start_openings(bundle: str, home: str) -> Iterator[Round]:
    """A runtime that is opened, makes one image, and is closed; every second one loads only what it needs."""

    def open_and_close(number: int) -> int:
        with Runtime.open(bundle, home=home, preload=number % 2 == 0) as runtime:
            runtime.generate("a red house by a lake", seed=number, candidate=_cheapest(runtime.candidates))
        return 0

    yield open_and_close


def start_streams(bundle: str, home: str) -> Iterator[Round]:
    """Streams that end early, in one of many ways."""
    prompts, rng = _prompts(), random.Random(0)
    with Runtime.open(bundle, home=home) as runtime:
        slowest = max(runtime.candidates, key=lambda each: each.num_inference_steps).name

        def cancel(number: int) -> int:
            way, delay_s = WAYS[number % len(WAYS)], rng.uniform(0.0, LONGEST_S)
            request = Request(prompt=prompts[number % len(prompts)], candidate=slowest, seed=number, preview=number % 3 == 0)
            return int(not way(runtime, request, delay_s))

        yield cancel


def start_jobs(bundle: str, home: str) -> Iterator[Round]:
    """Batches of jobs, a third of which are cancelled: at once, later, or by their callback."""
    prompts, rng = _prompts(), random.Random(0)
    with Runtime.open(bundle, home=home) as runtime:
        cheapest = _cheapest(runtime.candidates)

        def submit(number: int) -> int:
            numbers = range(BATCH * number, BATCH * (number + 1))
            jobs = [runtime.submit(prompts[each % len(prompts)], seed=each, candidate=cheapest) for each in numbers]
            for job in rng.sample(jobs, BATCH // 3):
                time.sleep(rng.uniform(0.0, LONGEST_S))
                job.cancel()
            errors = [job.exception() for job in jobs]
            return sum(not (error is None or isinstance(error, CancelledError)) for error in errors)

        yield submit


WORK = {
    "images": Work(start=start_images, first=100, rounds=10_000, quick_rounds=40),
    "openings": Work(start=start_openings, first=5, rounds=100, quick_rounds=4),
    "streams": Work(start=start_streams, first=100, rounds=1_000, quick_rounds=22),
    "jobs": Work(start=start_jobs, first=100 // BATCH, rounds=1_000 // BATCH, quick_rounds=2),
}


def _prompts() -> list[str]:
    return [prompt.text for prompt in held_out_captions(DATASET, PROMPTS_PER_BAND)]


def _cheapest(candidates: Sequence[Candidate]) -> str:
    return min(candidates, key=lambda each: each.num_inference_steps).name


if __name__ == "__main__":
    sys.exit(main())
