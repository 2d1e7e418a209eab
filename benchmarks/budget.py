"""Share of images that meet their latency budget.

Five budgets, evenly spaced in log time between the predicted 95th percentiles of the fastest and of the slowest candidate (after a few
images that calibrate the cost model), with 200 prompts each. Every prompt runs at all budgets before the next prompt, so that a slower
phase of the machine affects all budgets alike. Use an idle machine: costs hold for the load under which they were measured.

    python -m benchmarks.budget
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from benchmarks.caption import Prompt, held_out_captions
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, mean_figure, run_scenario, with_progress
from costroute_rt import Result, Runtime
from costroute_rt.export.postcard.captions import BANDS

BUDGETS, PROMPTS, QUICK_PROMPTS = 5, 200, 4
WARM_UP, QUICK_WARM_UP = 10, 2
"""Images by the fastest and by the slowest candidate before the budgets are chosen."""
DATASET = "held-out-budget"
MET_TARGET, RATIO_TARGET = Target(low=0.97), Target(low=0.9, high=1.1)
TARGETS = {"predicted/actual time": RATIO_TARGET}
ALL_TARGETS = {"budget met": MET_TARGET, **TARGETS}
"""Targets of all budgets together: the lowest one is the fastest candidate's 95th percentile, so it is met in about 95 % of cases."""


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser("budget", __doc__ or "").parse_args(argv)
    return run_benchmark("budget", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per budget, and one for all budgets together."""
    prompts = held_out_captions(DATASET, (QUICK_PROMPTS if args.quick else PROMPTS) // len(BANDS))
    with Runtime.open(args.bundle, home=args.home, build=True) as runtime:
        for _ in range(QUICK_WARM_UP if args.quick else WARM_UP):
            for name in fastest_and_slowest(runtime):
                runtime.generate(prompts[0].text, seed=0, candidate=name)
        budgets = choose_budgets(runtime, prompts[0].text)
        log(f"{len(prompts)} prompts at {', '.join(f'{budget:.0f}' for budget in budgets)} ms")
        results = generate_all(runtime, prompts, budgets)
    all_results = [result for each in results for result in each]
    rows = zip(make_scenarios(budgets, len(prompts)), [*results, all_results], strict=True)
    return [run_scenario(scenario, partial(summarise, each)) for scenario, each in rows]


def fastest_and_slowest(runtime: Runtime) -> tuple[str, str]:
    """Names of the fastest and the slowest candidate, by predicted 95th percentile."""
    options = sorted(runtime.route("a lake").options, key=lambda option: option.p95_ms)
    return options[0].candidate.name, options[-1].candidate.name


def choose_budgets(runtime: Runtime, prompt: str) -> list[float]:
    """Milliseconds, from the lowest predicted 95th percentile of a candidate to the highest."""
    p95_ms = [option.p95_ms for option in runtime.route(prompt).options]
    return [round(float(ms), 3) for ms in np.geomspace(min(p95_ms), max(p95_ms), BUDGETS)]


def make_scenarios(budgets: Sequence[float], prompts: int) -> list[Scenario]:
    """One scenario per budget, and one for all budgets together."""
    names = [f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms" for ms in budgets]
    return [
        *(
            Scenario(name=name, settings={"max_ms": ms, "captions": DATASET}, repeats=prompts, targets=TARGETS)
            for name, ms in zip(names, budgets, strict=True)
        ),
        Scenario(name="all budgets", settings={"max_ms": list(budgets)}, repeats=prompts * len(budgets), targets=ALL_TARGETS),
    ]


def generate_all(runtime: Runtime, prompts: Sequence[Prompt], budgets: Sequence[float]) -> list[list[Result]]:
    """For each budget, one result per prompt; the order of the budgets changes from prompt to prompt.

    Where no candidate fits, the fastest one runs; its budget counts as met only if the image is in time.
    """
    results: list[list[Result]] = [[] for _ in budgets]
    for number, prompt in enumerate(with_progress(prompts, "prompts")):
        for index in rotation(len(budgets), number):
            results[index].append(runtime.generate(prompt.text, seed=number, max_ms=budgets[index], or_fastest=True))
    return results


def rotation(count: int, number: int) -> Iterator[int]:
    """0 .. count - 1, starting at another place for each number."""
    return ((number + index) % count for index in range(count))


def summarise(results: Sequence[Result], scenario: Scenario) -> Measurement:
    """Figures of one budget."""
    used = [result.actual_ms / (result.route.max_ms or result.actual_ms) for result in results]
    shortened = [result for result in results if result.replanned]
    figures = [
        Figure(name="budget met", value=float(np.mean([result.met is True for result in results])), unit="share"),
        mean_figure("predicted/actual time", [result.predicted_ms / result.actual_ms for result in results], "ratio"),
        mean_figure("budget used", used, "share"),
        Figure(name="budget used, maximum", value=max(used), unit="share"),
        Figure(name="re-planned images", value=len(shortened), unit="count"),
        Figure(name="skipped steps", value=sum(result.replanned for result in shortened), unit="count"),
        Figure(name="no candidate fitted", value=sum(not result.route.option.fits for result in results), unit="count"),
    ]
    chosen = Counter(result.route.chosen.name.removeprefix("postcard-") for result in results)
    return Measurement(figures=figures, notes={"chosen candidates": ", ".join(f"{name} {count}" for name, count in chosen.most_common())})


if __name__ == "__main__":
    sys.exit(main())
