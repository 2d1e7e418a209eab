"""Memory of opening: what a second runtime of the same process adds, and what opening and closing again and again keeps.

Each number is measured in a separate process, on Linux.

    python -m benchmarks.open_close
    python -m benchmarks.open_close --rounds 100
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import costroute_rt
from benchmarks.process import run_process
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, run_scenario

GROWTH_TARGET = Target(high=5.0)
"""MB that all rounds after the first few may add."""
NONE_TARGET = Target(high=0.0)
FIRST_ROUNDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("open_close", __doc__ or "")
    parser.add_argument("--rounds", type=int, default=100, metavar="N", help="openings in a row (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_benchmark("open_close", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    bundle, rounds = args.bundle or costroute_rt.shipped_bundle(), FIRST_ROUNDS + 5 if args.quick else args.rounds
    second = Scenario(name="second runtime", settings={})
    again = Scenario(
        name="open and close",
        settings={"rounds": rounds},
        targets={"growth": GROWTH_TARGET, "threads left": NONE_TARGET, "files left": NONE_TARGET},
    )
    with tempfile.TemporaryDirectory() as home:
        return [run_scenario(second, partial(measure_second, bundle, home)), run_scenario(again, partial(measure_rounds, bundle, home))]


def measure_second(bundle: Path, home: str, scenario: Scenario) -> Measurement:
    _report("print_two", bundle, home)  # builds
    sizes = _report("print_two", bundle, home)
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    return Measurement(figures=[Figure(name="first", value=first, unit="MB"), Figure(name="second", value=second, unit="MB")])


def measure_rounds(bundle: Path, home: str, scenario: Scenario) -> Measurement:
    *sizes, threads, files = _report("print_rounds", bundle, home, str(scenario.settings["rounds"]))
    return Measurement(
        figures=[
            Figure(name="growth", value=sizes[-1] - sizes[FIRST_ROUNDS - 1], unit="MB"),
            Figure(name="threads left", value=threads, unit="count"),
            Figure(name="files left", value=files, unit="count"),
        ]
    )


def print_two(bundle: str, home: str) -> None:
    """Prints the resident memory before, with one, and with two runtimes."""
    sizes = [resident_mb()]
    with costroute_rt.Runtime.open(bundle, home=home, build=True):
        sizes.append(resident_mb())
        with costroute_rt.Runtime.open(bundle, home=home):
            sizes.append(resident_mb())
    print(json.dumps(sizes))


def print_rounds(bundle: str, home: str, rounds: str) -> None:
    """Prints the resident memory after each round, and how many threads and files all rounds but the first left open."""
    sizes, opened = [], list[tuple[int, int]]()
    for _ in range(int(rounds)):
        costroute_rt.Runtime.open(bundle, home=home, build=True).close()
        sizes.append(resident_mb())
        opened.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
    print(json.dumps([*sizes, opened[-1][0] - opened[0][0], opened[-1][1] - opened[0][1]]))


def resident_mb() -> float:
    """Resident memory of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _report(function: str, *arguments: str | Path) -> list[float]:
    code = f"import sys; from benchmarks.open_close import {function}; {function}(*sys.argv[1:])"
    found: list[float] = json.loads(run_process([sys.executable, "-c", code, *map(str, arguments)]).stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())
