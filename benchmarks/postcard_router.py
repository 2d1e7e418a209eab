"""Quality of the shipped router on held-out captions and seeds: `python -m benchmarks.router postcard`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from benchmarks.held_out import HeldOut, open_held_out
from benchmarks.scenario import ABOVE_ZERO, Figure, Measurement, Outcome, Scenario, Target, interval_figure, run_scenario
from costroute_rt.cost.allocation import allocate
from costroute_rt.export.postcard.captions import BANDS
from costroute_rt.export.router import curve
from costroute_rt.export.router.evaluate import Evaluation, evaluate
from costroute_rt.routing.array import FloatArray, IntArray

BASELINES = {"length": "by prompt length", "average": "averages only"}
ORACLE = "oracle by held-out seeds (upper bound)"
UNITS = {"area": "score", "qnc": "ratio", "gain": "score", "gain_at_mean_cost": "score", "over_hull_at_mean_cost": "score"}
TITLES = {
    "area": "area above random mixing",
    "qnc": "QNC (relative cost at equal quality)",
    "gain": "gain over best single candidate",
    "gain_at_mean_cost": "gain over mean-cost candidate at its cost",
    "over_hull_at_mean_cost": "gain over random mixing at mean cost",
}
SHORTEST, LONGEST = next(iter(BANDS)), list(BANDS)[-1]
EXTRA_COST = f"extra cost of {LONGEST} stated things over {SHORTEST}"
TARGETS = {
    f"{TITLES['area']}, lower bound": ABOVE_ZERO,
    TITLES["qnc"]: Target(high=0.6),
    f"{TITLES['gain_at_mean_cost']}, lower bound": ABOVE_ZERO,
    EXTRA_COST: ABOVE_ZERO,
}
RESAMPLES, QUICK_RESAMPLES = 2000, 200


def run(args: argparse.Namespace) -> list[Outcome]:
    """The router, baselines and oracle, and the candidates of each band under a budget of the mean-cost candidate's time."""
    held = open_held_out(args)
    evaluation = evaluate(held.cells, held.estimates, halves=held.halves, resamples=QUICK_RESAMPLES if args.quick else RESAMPLES)
    settings = {"routes_on": held.router.routes_on, "estimator": held.router.estimator.to_json(), **held.facts}
    outcomes = [run_scenario(Scenario(name="router", settings=settings, targets=TARGETS), lambda _: router_figures(held, evaluation))]
    for key, name in BASELINES.items():
        outcomes.append(run_scenario(Scenario(name=name), partial(baseline_figures, evaluation.figures[key])))
    if evaluation.oracle is not None:
        outcomes.append(run_scenario(Scenario(name=ORACLE), partial(oracle_figures, evaluation.oracle)))
    budget = float(held.cells.cost_ms[curve.mean_cost_candidate(held.cells.cost_ms)])
    for band in BANDS:
        outcomes.append(
            run_scenario(Scenario(name=f"{band} stated", settings={"mean_ms": budget}), partial(band_figures, held, budget, band))
        )
    return outcomes


def router_figures(held: HeldOut, evaluation: Evaluation) -> Measurement:
    """Figures and calibration of the router, and the extra cost of long captions."""
    router, calibration = evaluation.figures["router"], evaluation.calibration
    lower = [Figure(name=f"{TITLES[name]}, lower bound", value=router[name].low, unit="score") for name in ("area", "gain_at_mean_cost")]
    rows = [("calibration slope", "slope_by_prompt", "ratio"), ("bias", "bias", "score"), ("RMS error", "rms_error", "score")]
    rows.append(("label noise", "label_noise", "score"))
    figures = [
        *(figure for name in TITLES for figure in finite_figures(name, router[name])),
        *lower,
        *(
            []
            if evaluation.reachable_share is None
            else [Figure(name="area relative to oracle", value=evaluation.reachable_share, unit="share")]
        ),
        *(Figure(name=name, value=calibration[key], unit=unit) for name, key, unit in rows if calibration[key] is not None),
        Figure(name="mean trust", value=evaluation.mean_trust, unit="share"),
        extra_cost(held),
    ]
    middle = curve.mean_cost_candidate(held.cells.cost_ms)
    best = curve.best_single(held.cells.cost_ms, held.cells.mean.mean(0))
    names, cost = held.cells.candidates, held.cells.cost_ms
    notes = {
        "routes on": held.router.routes_on,
        "best single candidate": f"{names[best]}, {cost[best]:.0f} ms",
        "mean-cost candidate": f"{names[middle]}, {cost[middle]:.0f} ms",
    }
    return Measurement(figures=figures, notes={**notes, "labels": held.size, "costs": held.costs})


def baseline_figures(intervals: Mapping[str, curve.Interval], scenario: Scenario) -> Measurement:
    """Figures of a baseline."""
    return Measurement(figures=[figure for name in TITLES for figure in finite_figures(name, intervals[name])])


def oracle_figures(values: Mapping[str, float], scenario: Scenario) -> Measurement:
    """Figures of an oracle that chooses by half of the seeds and is scored on the other half."""
    return Measurement(
        figures=[Figure(name=TITLES[name], value=values[name], unit=UNITS[name]) for name in TITLES if math.isfinite(values[name])]
    )


def finite_figures(name: str, interval: curve.Interval) -> list[Figure]:
    """The figure with its interval; without the interval where a bound is infinite; no figure where the value is infinite."""
    if not math.isfinite(interval.value):
        return []
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        return [interval_figure(TITLES[name], interval, UNITS[name])]
    return [Figure(name=TITLES[name], value=interval.value, unit=UNITS[name])]


def choose(held: HeldOut, mean_ms: float) -> IntArray:
    """int64[prompts]: the candidates that `gen --prompts FILE --mean-ms` would choose."""
    cells = held.cells
    return allocate(held.estimates.mean, cells.cost_ms, max(mean_ms, float(cells.cost_ms.min())) * len(cells)).choice


def extra_cost(held: HeldOut) -> Figure:
    """Mean milliseconds of captions of the last band less those of the first, under a budget of the mean-cost candidate's time."""
    cost = held.cells.cost_ms
    spent = cost[choose(held, float(cost[curve.mean_cost_candidate(cost)]))]
    bands = np.array(held.cells.categories)
    if not ((bands == SHORTEST).any() and (bands == LONGEST).any()):
        raise ValueError(f"the labels have no prompts of category {SHORTEST} or {LONGEST}")

    def measure(weight: FloatArray) -> dict[str, float]:
        means = [
            float(spent[bands == band] @ weight[bands == band] / max(weight[bands == band].sum(), 1e-9)) for band in (SHORTEST, LONGEST)
        ]
        return {"extra": means[1] - means[0]}

    return interval_figure(EXTRA_COST, curve.bootstrap(measure, held.cells.groups)["extra"], "ms")


def band_figures(held: HeldOut, budget: float, band: str, scenario: Scenario) -> Measurement:
    """Mean cost, and share of each candidate, of the captions of one band."""
    in_band = np.array(held.cells.categories) == band
    if not in_band.any():
        return Measurement(figures=(), notes={"none": "no captions in this band"})
    choice, cost = choose(held, budget)[in_band], held.cells.cost_ms
    heading = f"candidates chosen at a mean cost of {budget:.0f} ms, by number of stated things"
    figures = [Figure(name="captions", value=float(in_band.sum()), unit="count", table=heading)]
    figures.append(Figure(name="mean cost", value=float(cost[choice].mean()), unit="ms", table=heading))
    order: Sequence[int] = np.argsort(cost, kind="stable").tolist()
    for index in order:
        name = f"{held.cells.candidates[index]}, {cost[index]:.0f} ms"
        figures.append(Figure(name=name, value=float((choice == index).mean()), unit="share", table=heading))
    return Measurement(figures=figures)
