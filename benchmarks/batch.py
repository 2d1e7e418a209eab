"""One time budget for many prompts: allocated by the router, compared with equal shares.

Uses held-out captions at three total budgets: 25, 50 and 75 % of the way from the cheapest candidate for every prompt to the best predicted
candidate for each. Allocated: `allocate`, as in `gen --prompts FILE --total-s`. Equal shares: for each prompt the best predicted candidate
that costs at most total / prompts. Quality is that of the labels. Intervals are 95 %, by a paired bootstrap over prompts.

    python -m benchmarks.batch
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.held_out import HeldOut, add_options, open_held_out
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import ABOVE_ZERO, Figure, Measurement, Outcome, Scenario, interval_figure, run_scenario
from costroute_rt.cost.allocation import allocate
from costroute_rt.export.router.curve import bootstrap_mean
from costroute_rt.routing.array import FloatArray, IntArray

SHARES = (0.25, 0.5, 0.75)
"""Positions of the budgets between the cheapest candidate for every prompt (0) and the best predicted one for each (1)."""
TARGETS = {"gain over equal shares, lower bound": ABOVE_ZERO}


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("batch", __doc__ or "")
    add_options(parser)
    args = parser.parse_args(argv)
    return run_benchmark("batch", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per total budget."""
    held = open_held_out(args)
    outcomes = []
    for share, total_ms in zip(SHARES, total_budgets(held.estimates.mean, held.cells.cost_ms), strict=True):
        settings = {"total_ms": round(total_ms, 3), "share": share, "routes_on": held.router.routes_on, **held.facts}
        name = f"{total_ms / len(held.cells):.0f} ms per prompt ({share:.0%})"
        outcomes.append(run_scenario(Scenario(name=name, settings=settings, targets=TARGETS), partial(compare, held, total_ms)))
    return outcomes


def total_budgets(quality: FloatArray, cost_ms: FloatArray) -> list[float]:
    """Total milliseconds for each of SHARES."""
    least = len(quality) * float(cost_ms.min())
    most = float(cost_ms[quality.argmax(1)].sum())
    return [least + share * (most - least) for share in SHARES]


def compare(held: HeldOut, total_ms: float, scenario: Scenario) -> Measurement:
    """Quality and share of the budget used, for both rules."""
    cells, quality = held.cells, held.estimates.mean
    rows, mean_ms = np.arange(len(cells)), total_ms / len(cells)
    allocated, equal = allocate(quality, cells.cost_ms, total_ms).choice, equal_shares(quality, cells.cost_ms, mean_ms)
    gain = bootstrap_mean(cells.mean[rows, allocated] - cells.mean[rows, equal], cells.groups)
    figures = [
        Figure(name="prompts", value=len(cells), unit="count"),
        Figure(name="allocated", value=float(cells.mean[rows, allocated].mean()), unit="score"),
        Figure(name="equal shares", value=float(cells.mean[rows, equal].mean()), unit="score"),
        interval_figure("gain over equal shares", gain, "score"),
        Figure(name="gain over equal shares, lower bound", value=gain.low, unit="score"),
        Figure(name="budget used, allocated", value=float(cells.cost_ms[allocated].mean() / mean_ms), unit="share"),
        Figure(name="budget used, equal shares", value=float(cells.cost_ms[equal].mean() / mean_ms), unit="share"),
    ]
    return Measurement(figures=figures, notes={"costs": held.costs})


def equal_shares(quality: FloatArray, cost_ms: FloatArray, mean_ms: float) -> IntArray:
    """int64[prompts]: the best predicted candidate of those that cost at most `mean_ms`; at least the cheapest does."""
    return np.asarray(np.where(cost_ms <= mean_ms + 1e-9, quality, -np.inf).argmax(1), dtype=np.int64)


if __name__ == "__main__":
    sys.exit(main())
