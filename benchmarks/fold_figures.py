"""Figures of routers that were fitted to the other folds of a table: each fold's own curve beside that of averages.

With pooled folds a candidate that looks good in four folds looks bad in the fifth, so averages alone get an area below 0. Each fold's curve
is therefore measured on its own, and less that of the averages its router would mix by chance, at equal cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.scenario import Figure, interval_figure
from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Curve, Interval
from costroute_rt.judgement import LEVELS
from costroute_rt.routing.array import FloatArray, IntArray
from costroute_rt.routing.evidence import Evidence

BoolArray = npt.NDArray[np.bool_]
RESAMPLES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """What the router of the other folds says of one fold's prompts."""

    rows: IntArray
    """int64[prompts]: the fold's prompts in the table."""
    average: FloatArray
    """float64[candidates]: averages of the other folds."""
    estimates: Mapping[str, FloatArray]
    """float64[prompts, candidates] by kind of router."""
    reason: str
    label_widths: FloatArray | None = None
    """float64[LEVELS, prompts, candidates]: half-widths of a label's intervals around the shrunk estimates."""
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    """By kind of router: what a strict one asks at each trade-off."""

    def route(self, kind: str, cost: FloatArray) -> IntArray:
        """int64[settings, prompts]: the candidates at every trade-off, from the best to the cheapest."""
        estimate, evidence = self.estimates[kind], self.evidence.get(kind)
        routed = curve.route(estimate, cost)
        if evidence is None or routed.multiplier is None:
            return routed.choice
        shares = [evidence.share(lam * cost) for lam in routed.multiplier]
        mixed = [self.average + share * (estimate - self.average) for share in shares]
        return np.concatenate([curve.route(each, cost, lam).choice for each, lam in zip(mixed, routed.multiplier, strict=True)])


def coverages(folds: Sequence[FoldResult], kind: str, labels: Cells) -> dict[float, float]:
    """By level, the share of the labels of prompts kept aside that are inside their intervals; empty where a fold has no intervals."""
    inside: dict[float, list[BoolArray]] = {level: [] for level in LEVELS}
    for fold in folds:
        if fold.label_widths is None:
            return {}
        known = labels.count[fold.rows] > 0
        missed = np.abs(np.where(known, labels.mean[fold.rows] - fold.estimates[kind], np.nan))[known]
        for level, width in zip(LEVELS, fold.label_widths, strict=True):
            inside[level].append(missed <= width[known])
    return {level: float(np.concatenate(parts).mean()) for level, parts in inside.items()}


def assumed_cost(quality: FloatArray) -> FloatArray:
    """1, 2, 3 ... in the order of mean quality."""
    cost = np.empty(len(quality))
    cost[np.argsort(quality)] = np.arange(1, len(quality) + 1)
    return cost


def kind_figures(folds: Sequence[FoldResult], kind: str, truth: Cells, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """`gain` and `area` of one kind of router over averages, with 95 % intervals by a bootstrap over prompts.

    gain: quality at lambda 0, less that of the candidate with the best average of the other folds. area: mean height of the curve over
    that of averages, from the least to the greatest cost, where costs are assumed. Means over folds, weighted by their prompts.
    truth: labels of every candidate.
    """
    cost = assumed_cost(truth.mean.mean(0))
    measures = [_FoldMeasure.of(fold, kind, truth, cost) for fold in folds]

    def measure(weight: FloatArray) -> dict[str, float]:
        found, total = {"gain": 0.0, "area": 0.0}, 0.0
        for each in measures:
            own = weight[each.rows]
            if not own.sum():
                continue
            total += float(own.sum())
            found["gain"] += float(own @ each.gain)
            found["area"] += float(own.sum()) * curve.area_above(*each.curves(own), cost)
        return {name: value / total for name, value in found.items()}

    return curve.bootstrap(measure, truth.groups, resamples=resamples)


def best_gain(folds: Sequence[FoldResult], kind: str, truth: Cells) -> Interval:
    """Gain at lambda 0 over the single candidate that is best in hindsight."""
    best = truth.mean[:, int(truth.mean.mean(0).argmax())]
    gains = [truth.mean[fold.rows, fold.estimates[kind].argmax(1)] - best[fold.rows] for fold in folds]
    groups = np.concatenate([truth.groups[fold.rows] for fold in folds])
    return curve.bootstrap_mean(np.concatenate(gains), groups)


def in_errors(name: str, found: Interval) -> Figure:
    """The figure in units of its standard error; 0 where the error is 0 apart from rounding."""
    error = (found.high - found.low) / (2 * 1.96)
    return Figure(name=f"{name}, in standard errors", value=found.value / error if error > 1e-12 else 0.0, unit="ratio")


def show(name: str, found: Interval) -> Figure:
    """The figure with its interval, in units of the score."""
    return interval_figure(name, found, "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class _FoldMeasure:
    rows: IntArray
    gain: FloatArray
    """float64[prompts]"""
    scored: FloatArray
    """float64[prompts, settings]: the label of the routed candidate."""
    paid: FloatArray
    """float64[prompts, settings]: its cost."""
    base: FloatArray
    """float64[prompts, members]: labels of the candidates on the hull of the averages."""
    base_cost: FloatArray

    @classmethod
    def of(cls, fold: FoldResult, kind: str, truth: Cells, cost: FloatArray) -> _FoldMeasure:
        labels = truth.mean[fold.rows]
        each, members = np.arange(len(labels)), curve.hull_members(cost, fold.average)
        choice = fold.route(kind, cost)
        return cls(
            rows=fold.rows,
            gain=labels[each, choice[0]] - labels[:, members[-1]],
            scored=labels[each, choice].T,
            paid=cost[choice].T,
            base=labels[:, members],
            base_cost=cost[members],
        )

    def curves(self, weight: FloatArray) -> tuple[Curve, Curve]:
        """The router's curve, and that of the averages; weight: float64[prompts]."""
        share = weight / weight.sum()
        return Curve(cost=share @ self.paid, quality=share @ self.scored), Curve(cost=self.base_cost, quality=share @ self.base)
