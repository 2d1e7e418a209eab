"""One budget for many prompts: dividing it by need against giving each prompt the mean.

Held-out captions at three total budgets, a quarter, a half and three quarters of the way from the cheapest candidate for all to the best
for each, as the router sees it. Divided: `allocate`, as in `gen --prompts FILE --total-s`. Mean for each: the best predicted candidate
whose cost is at most total / prompts. What the choices are worth is what the labels say. Intervals are 95 %, by a paired bootstrap.

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
from benchmarks.scenario import ABOVE_ZERO, Figure, Measured, Outcome, Scenario, attempt
from costroute_rt.cost.allocation import allocate
from costroute_rt.export.router.curve import bootstrap_mean
from costroute_rt.routing.array import FloatArray, IntArray

SHARES = (0.25, 0.5, 0.75)
"""Of the way from the cheapest for all to the best for each."""
TARGETS = {"difference, lower end": ABOVE_ZERO}


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("batch", __doc__ or "")
    add_options(parser)
    args = parser.parse_args(argv)
    return run_benchmark("batch", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario for each budget."""
    held = open_held_out(args)
    outcomes = []
    for share, total_ms in zip(SHARES, budgets(held.estimates.mean, held.cells.cost_ms), strict=True):
        settings = {"total_ms": round(total_ms, 3), "share": share, "routes_on": held.router.routes_on, **held.facts}
        name = f"{total_ms / len(held.cells):.0f} ms a prompt ({share:.0%})"
        outcomes.append(attempt(Scenario(name=name, settings=settings, targets=TARGETS), partial(compare, held, total_ms)))
    return outcomes


def budgets(quality: FloatArray, cost_ms: FloatArray) -> list[float]:
    """Total milliseconds at each of SHARES."""
    least = len(quality) * float(cost_ms.min())
    most = float(cost_ms[quality.argmax(1)].sum())
    return [least + share * (most - least) for share in SHARES]


def compare(held: HeldOut, total_ms: float, scenario: Scenario) -> Measured:
    """What both rules reach and spend."""
    cells, quality = held.cells, held.estimates.mean
    rows, mean_ms = np.arange(len(cells)), total_ms / len(cells)
    divided, level = allocate(quality, cells.cost_ms, total_ms).choice, mean_for_each(quality, cells.cost_ms, mean_ms)
    found = bootstrap_mean(cells.mean[rows, divided] - cells.mean[rows, level], cells.groups)
    figures = [
        Figure(name="prompts", value=len(cells), unit="count"),
        Figure(name="divided", value=float(cells.mean[rows, divided].mean()), unit="score"),
        Figure(name="mean for each", value=float(cells.mean[rows, level].mean()), unit="score"),
        Figure(name="difference", value=found.value, unit="score", low=found.low, high=found.high),
        Figure(name="difference, lower end", value=found.low, unit="score"),
        Figure(name="divided, spent", value=float(cells.cost_ms[divided].mean() / mean_ms), unit="share"),
        Figure(name="mean for each, spent", value=float(cells.cost_ms[level].mean() / mean_ms), unit="share"),
    ]
    return Measured(figures=figures, notes={"costs": held.costs})


def mean_for_each(quality: FloatArray, cost_ms: FloatArray, mean_ms: float) -> IntArray:
    """int64[prompts]: the best predicted candidate of those that cost at most `mean_ms`, which at least the cheapest does."""
    return np.asarray(np.where(cost_ms <= mean_ms + 1e-9, quality, -np.inf).argmax(1), dtype=np.int64)


if __name__ == "__main__":
    sys.exit(main())
