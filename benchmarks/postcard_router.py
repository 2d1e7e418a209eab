"""What the shipped router is worth on captions and seeds it was not fitted to: `python -m benchmarks.router postcard`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from benchmarks.held_out import HeldOut, open_held_out
from benchmarks.scenario import ABOVE_ZERO, Figure, Measured, Outcome, Scenario, Target, attempt
from costroute_rt.cost.allocation import allocate
from costroute_rt.export.postcard.captions import BANDS
from costroute_rt.export.router import curve
from costroute_rt.export.router.evaluate import Evaluation, evaluate
from costroute_rt.routing.array import FloatArray, IntArray

NAMES = {"router": "router", "length": "longer prompts get more", "average": "averages"}
ORACLE = "chosen on other seeds"
UNITS = {"area": "score", "qnc": "ratio", "gain": "score", "gain_at_mean_cost": "score", "over_hull_at_mean_cost": "score"}
TITLES = {
    "area": "area over mixing",
    "qnc": "QNC",
    "gain": "gain",
    "gain_at_mean_cost": "gain at mean cost",
    "over_hull_at_mean_cost": "over mixing there",
}
TARGETS = {
    "area over mixing, lower end": ABOVE_ZERO,
    "QNC": Target(high=0.6),
    "gain at mean cost, lower end": ABOVE_ZERO,
    "7+ costs more than 1-2": ABOVE_ZERO,
}
RESAMPLES, QUICK_RESAMPLES = 2000, 200


def run(args: argparse.Namespace) -> list[Outcome]:
    """The router, what needs no router beside it, and who gets what where a mean-cost candidate's time is spent."""
    held = open_held_out(args)
    found = evaluate(held.cells, held.estimates, halves=held.halves, resamples=QUICK_RESAMPLES if args.quick else RESAMPLES)
    settings = {"routes_on": held.router.routes_on, "estimator": held.router.estimator.to_json(), **held.facts}
    outcomes = [attempt(Scenario(name="router", settings=settings, targets=TARGETS), lambda _: judge_router(held, found))]
    for key in ("length", "average"):
        outcomes.append(attempt(Scenario(name=NAMES[key]), partial(compare, found.figures[key])))
    if found.oracle is not None:
        outcomes.append(attempt(Scenario(name=ORACLE), partial(bound, found.oracle)))
    budget = float(held.cells.cost_ms[curve.mean_cost_candidate(held.cells.cost_ms)])
    for band in BANDS:
        outcomes.append(attempt(Scenario(name=band, settings={"mean_ms": budget}), partial(share, held, budget)))
    return outcomes


def judge_router(held: HeldOut, found: Evaluation) -> Measured:
    """Its figures, its calibration, and what long captions cost more than short ones."""
    router, about = found.figures["router"], found.calibration
    lower = [Figure(name=f"{TITLES[name]}, lower end", value=router[name].low, unit="score") for name in ("area", "gain_at_mean_cost")]
    calibration = [("slope by prompt", "slope_by_prompt", "ratio"), ("bias", "bias", "score"), ("error", "rms_error", "score")]
    calibration.append(("noise of labels", "label_noise", "score"))
    figures = [
        *(figure for name in TITLES for figure in show(name, router[name])),
        *lower,
        *([] if found.reachable_share is None else [Figure(name="share of what labels allow", value=found.reachable_share, unit="share")]),
        *(Figure(name=name, value=about[key], unit=unit) for name, key, unit in calibration if about[key] is not None),
        Figure(name="trust", value=found.mean_trust, unit="share"),
        longer_costs_more(held),
    ]
    middle = curve.mean_cost_candidate(held.cells.cost_ms)
    best = curve.best_single(held.cells.cost_ms, held.cells.mean.mean(0))
    names, cost = held.cells.candidates, held.cells.cost_ms
    notes = {
        "routes on": held.router.routes_on,
        "best single": f"{names[best]}, {cost[best]:.0f} ms",
        "mean cost": f"{names[middle]}, {cost[middle]:.0f} ms",
    }
    return Measured(figures=figures, notes={**notes, "labels": held.size, "costs": held.costs})


def compare(found: Mapping[str, curve.Interval], scenario: Scenario) -> Measured:
    """The figures of what needs no router."""
    return Measured(figures=[figure for name in TITLES for figure in show(name, found[name])])


def bound(found: Mapping[str, float], scenario: Scenario) -> Measured:
    """What the labels allow: the choice that half of the seeds would make, scored on the others."""
    return Measured(
        figures=[Figure(name=TITLES[name], value=found[name], unit=UNITS[name]) for name in TITLES if math.isfinite(found[name])]
    )


def show(name: str, found: curve.Interval) -> list[Figure]:
    """A figure with its interval, of which an infinite end is left out; nothing for one that is infinite itself."""
    if not math.isfinite(found.value):
        return []
    low, high = (found.low, found.high) if math.isfinite(found.low) and math.isfinite(found.high) else (None, None)
    return [Figure(name=TITLES[name], value=found.value, unit=UNITS[name], low=low, high=high)]


def choose(held: HeldOut, mean_ms: float) -> IntArray:
    """int64[prompts]: the candidates that `gen --prompts FILE --mean-ms` would give."""
    cells = held.cells
    return allocate(held.estimates.mean, cells.cost_ms, max(mean_ms, float(cells.cost_ms.min())) * len(cells)).choice


def longer_costs_more(held: HeldOut) -> Figure:
    """Milliseconds that captions of the last band get more than those of the first, where a mean-cost candidate's time is spent."""
    cost = held.cells.cost_ms
    spent = cost[choose(held, float(cost[curve.mean_cost_candidate(cost)]))]
    bands = np.array(held.cells.categories)
    first, last = next(iter(BANDS)), list(BANDS)[-1]
    if not ((bands == first).any() and (bands == last).any()):
        raise ValueError(f"the labels have no prompts of category {first} or {last}")

    def measure(weight: FloatArray) -> dict[str, float]:
        means = [float(spent[bands == band] @ weight[bands == band] / max(weight[bands == band].sum(), 1e-9)) for band in (first, last)]
        return {"more": means[1] - means[0]}

    found = curve.bootstrap(measure, held.cells.groups)["more"]
    return Figure(name=f"{last} costs more than {first}", value=found.value, unit="ms", low=found.low, high=found.high)


def share(held: HeldOut, budget: float, scenario: Scenario) -> Measured:
    """What the captions of one band get."""
    there = np.array(held.cells.categories) == scenario.name
    if not there.any():
        return Measured(figures=(), notes={"none": "no such captions"})
    choice, cost = choose(held, budget)[there], held.cells.cost_ms
    heading = f"who gets what at a mean of {budget:.0f} ms, by the number of things a caption states"
    figures = [Figure(name="captions", value=float(there.sum()), unit="count", table=heading)]
    figures.append(Figure(name="mean cost", value=float(cost[choice].mean()), unit="ms", table=heading))
    order: Sequence[int] = np.argsort(cost, kind="stable").tolist()
    for index in order:
        name = f"{held.cells.candidates[index]}, {cost[index]:.0f} ms"
        figures.append(Figure(name=name, value=float((choice == index).mean()), unit="share", table=heading))
    return Measured(figures=figures)
