"""How good a router is on labels it was not fitted to, compared with choices that need no router."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.cost.allocation import allocate
from costroute_rt.error import ConfigError
from costroute_rt.export.router import curve
from costroute_rt.export.router.band import Band, by_weight, cost_grid, hull_by_weight, interval_bands, mean_by_weight, sure_ranges
from costroute_rt.export.router.calibration import calibrate
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.complexity import describe_complexity
from costroute_rt.export.router.cross_validation import complete_prompts
from costroute_rt.export.router.curve import Curve, Interval, Routed
from costroute_rt.export.router.estimates import Estimates
from costroute_rt.export.router.missing import completed
from costroute_rt.export.router.oracle import Oracle, find_oracle
from costroute_rt.export.router.rounding import plain, rounded
from costroute_rt.export.router.trend import against_trend, decided_shares, sweep
from costroute_rt.routing.array import FloatArray

LEVELS = 5
"""Evenly spaced mean costs at which shares of candidates are reported; fewer if the router has fewer settings."""
FEW_RESAMPLES = 500
"""For figures of a whole curve, which are slower than a mean."""
LEAST_IN_CATEGORY = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Result of an evaluation; `to_json` has all of it, the fields are for plots."""

    prompts: int
    incomplete: int
    """Prompts without labels for every candidate; they count too."""
    has_cost: bool
    candidates: list[dict[str, Any]]
    figures: dict[str, dict[str, Interval]]
    """By router (router, length, average), then by figure (see `curve.curve_figures`); only `gain` if costs are unknown."""
    curves: dict[str, Curve]
    """router, hull, length, average and, with two seeds or more, oracle; empty if costs are unknown."""
    shares: list[dict[str, Any]]
    bands: dict[str, Band]
    """The curves with 95 % intervals over prompts, at evenly spaced mean costs; empty if costs are unknown."""
    above_averages: dict[str, Band]
    """Their heights above that of `average`, on the same prompts."""
    decided: list[dict[str, Any]]
    """At each multiplier, the share of the prompts whose candidate is another one than by averages."""
    complexity: dict[str, Any]
    """Shares of the candidates by kind of prompt, where routing costs as much as the mean-cost candidate."""
    against_trend: list[dict[str, Any]]
    """For each candidate, choices that averages would not have made, with examples."""
    oracle: dict[str, float] | None
    """Figures of an oracle that chooses by half of the seeds and is scored on the others; None with one seed."""
    reachable_share: float | None
    """The router's area (its gain, if costs are unknown) as a share of the oracle's."""
    calibration: dict[str, Any]
    categories: list[dict[str, Any]]
    ms: list[dict[str, Any]]
    """Predicted and labelled milliseconds of each candidate; empty if either is unknown."""
    router_ms: float | None
    """Time to judge one prompt."""
    mean_trust: float
    facts: Mapping[str, Any]
    """Added by the caller: the router's record, files, device."""

    @property
    def sure_ms(self) -> list[list[float]]:
        """Ranges of mean cost over which the router is surely above averages."""
        return sure_ranges(self.above_averages["router"]) if self.above_averages else []

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        own = {
            name: getattr(self, name)
            for name in ("prompts", "incomplete", "has_cost", "candidates", "shares", "complexity", "against_trend")
        }
        return {
            **own,
            "figures": {router: {name: found.to_json() for name, found in each.items()} for router, each in self.figures.items()},
            "curves": {name: {"cost_ms": plain(each.cost), "quality": plain(each.quality)} for name, each in self.curves.items()},
            "bands": {name: each.to_json() for name, each in self.bands.items()},
            "above_averages": {name: each.to_json() for name, each in self.above_averages.items()},
            "prompt_decides": {"surely_above_averages_ms": self.sure_ms, "settings": self.decided},
            "oracle": None if self.oracle is None else {name: _finite(value) for name, value in self.oracle.items()},
            "reachable_share": rounded(self.reachable_share),
            "calibration": self.calibration,
            "categories": self.categories,
            "ms": self.ms,
            "router_ms": rounded(self.router_ms),
            "mean_trust": rounded(self.mean_trust),
            **self.facts,
        }


def evaluate(
    cells: Cells,
    estimates: Estimates,
    *,
    halves: Sequence[Cells] = (),
    predicted_ms: Mapping[str, float] | None = None,
    router_ms: float | None = None,
    facts: Mapping[str, Any] | None = None,
    resamples: int = FEW_RESAMPLES,
) -> Evaluation:
    """Routes the prompts at every multiplier and compares the results with choices that need no router.

    cells: held-out labels; missing ones are replaced as in `unbiased_labels`. estimates: for all prompts of `cells`. halves: the same
    labels, from two halves of the seeds. predicted_ms: predictions of the cost model by candidate. Raises ConfigError for a candidate
    without labels.
    """
    empty = [name for name, count in zip(cells.candidates, (cells.count > 0).sum(0), strict=True) if not count]
    if empty:
        raise ConfigError("labels", f"none of {', '.join(empty)}", "labels of every candidate")
    kept, judged = completed(cells), estimates
    cost, truth = kept.cost_ms, kept.mean
    routed, swept = _routers(kept, judged), sweep(judged, kept)
    figures = {name: _figures(each, kept, resamples) for name, each in routed.items()}
    curves = {name: each.points(cost, truth) for name, each in routed.items()} if kept.has_cost else {}
    if kept.has_cost:
        curves["hull"] = curve.hull(cost, truth.mean(0))
    oracle = find_oracle(halves)
    if oracle is not None and kept.has_cost:
        curves["oracle"] = oracle.curve
    bands, above = _bands(kept, routed, oracle, resamples) if kept.has_cost else ({}, {})
    return Evaluation(
        prompts=len(kept),
        incomplete=int((~complete_prompts(cells)).sum()),
        has_cost=kept.has_cost,
        candidates=_candidates(kept, judged, routed["router"], resamples),
        figures=figures,
        curves=curves,
        shares=_shares(kept, routed["router"]) if kept.has_cost else [],
        bands=bands,
        above_averages=above,
        decided=decided_shares(swept, judged.average, kept),
        complexity=describe_complexity(routed["router"], kept),
        against_trend=against_trend(swept, judged, cells),
        oracle=None if oracle is None else oracle.figures,
        reachable_share=_reachable(kept, figures["router"], oracle),
        calibration=calibrate(cells, judged, resamples=resamples),
        categories=_categories(kept, judged),
        ms=_compare_ms(kept, predicted_ms or {}),
        router_ms=router_ms,
        mean_trust=float(estimates.trust.mean()),
        facts=facts or {},
    )


def split_seeds(make: Callable[[Sequence[int]], Cells], seeds: Sequence[int]) -> list[Cells]:
    """Cells of two halves of the seeds, for the prompts that are complete in both; none with one seed or without such prompts.

    make: returns the cells of these seeds (`LabelTable.cells`).
    """
    if len(seeds) < 2:
        return []
    halves = [make(seeds[start::2]) for start in (0, 1)]
    places = [{key: row for row, key in enumerate(half.prompt_ids) if (half.count[row] > 0).all()} for half in halves]
    shared = [key for key in places[0] if key in places[1]]
    return [half.select([place[key] for key in shared]) for half, place in zip(halves, places, strict=True)] if shared else []


def _routers(cells: Cells, estimates: Estimates) -> dict[str, Routed]:
    lams = None if cells.has_cost else [0.0]
    level = np.broadcast_to(estimates.average, estimates.mean.shape)
    routed = {"router": estimates.route(cells.cost_ms, lams), "average": curve.route(level, cells.cost_ms, lams)}
    if cells.has_cost:
        routed["length"] = curve.route_by_length(cells.prompts, cells.cost_ms, cells.mean.mean(0))
    return routed


def _figures(routed: Routed, cells: Cells, resamples: int) -> dict[str, Interval]:
    """The curve's figures; the gain over the best single candidate has an interval from more resamples."""
    rows, best = np.arange(len(cells)), curve.best_single(cells.cost_ms, cells.mean.mean(0))
    gain = curve.bootstrap_mean(cells.mean[rows, routed.choice[0]] - cells.mean[:, best], cells.groups)
    if not cells.has_cost:
        return {"gain": gain}
    measure = curve.figures_by_weight(routed, cells.cost_ms, cells.mean)
    return {**curve.bootstrap(measure, cells.groups, resamples=resamples), "gain": gain}


def _candidates(cells: Cells, estimates: Estimates, routed: Routed, resamples: int) -> list[dict[str, Any]]:
    share = routed.shares(len(cells.candidates))[0]
    ends = curve.bootstrap(
        lambda weight: dict(zip(cells.candidates, (weight @ cells.mean / weight.sum()).tolist(), strict=True)),
        cells.groups,
        resamples=resamples,
    )
    return [
        {
            "name": name,
            "cost_ms": rounded(cells.cost_ms[index]) if cells.has_cost else None,
            "quality": rounded(cells.mean[:, index].mean()),
            "quality_interval": [rounded(ends[name].low), rounded(ends[name].high)],
            "predicted": rounded(estimates.mean[:, index].mean()),
            "best_for": rounded(share[index]),
        }
        for index, name in enumerate(cells.candidates)
    ]


def _shares(cells: Cells, routed: Routed) -> list[dict[str, Any]]:
    """Shares of the candidates, and the length of their prompts, at each of LEVELS mean costs."""
    points, words = routed.points(cells.cost_ms, cells.mean), np.array([len(prompt.split()) for prompt in cells.prompts])
    rows = []
    levels = np.linspace(points.cost.min(), points.cost.max(), LEVELS)
    for setting in dict.fromkeys(int(np.argmin(np.abs(points.cost - level))) for level in levels):
        choice = routed.choice[setting]
        taken = {
            name: {
                "share": rounded((choice == index).mean()),
                "words": rounded(words[choice == index].mean()) if (choice == index).any() else None,
            }
            for index, name in enumerate(cells.candidates)
        }
        rows.append({"cost_ms": rounded(points.cost[setting]), "quality": rounded(points.quality[setting]), "candidates": taken})
    return rows


def _bands(cells: Cells, routed: Mapping[str, Routed], oracle: Oracle | None, resamples: int) -> tuple[dict[str, Band], dict[str, Band]]:
    """Of every curve, and of their heights above that of averages; the oracle's is over the prompts that it has."""
    grid, weighted = cost_grid(cells.cost_ms), {name: by_weight(each, cells) for name, each in routed.items()}
    weighted["hull"] = hull_by_weight(cells)
    bands, above = interval_bands(weighted, grid, cells.groups, base=weighted["average"], resamples=resamples)
    if oracle is not None:
        level = Routed(choice=np.repeat(routed["average"].choice[:, :1], len(oracle.groups), axis=1))
        own = {"oracle": mean_by_weight(oracle.routed, oracle.truths, cells.cost_ms)}
        base = mean_by_weight((level, level), oracle.truths, cells.cost_ms)
        found = interval_bands(own, grid, oracle.groups, base=base, resamples=resamples)
        bands, above = bands | found[0], above | found[1]
    return bands, above


def _reachable(cells: Cells, figures: Mapping[str, Interval], oracle: Oracle | None) -> float | None:
    name = "area" if cells.has_cost else "gain"
    if oracle is None or not oracle.figures.get(name, 0.0) > 1e-9:
        return None
    return figures[name].value / oracle.figures[name]


def _categories(cells: Cells, estimates: Estimates) -> list[dict[str, Any]]:
    """For each category that is not too small: the gain of routing over the single candidate that is best over all categories.

    mean_ms: mean time of its prompts if all prompts share the time of the mean-cost candidate; None if costs are unknown.
    """
    if cells.categories is None:
        return []
    spent = _spend_mean(cells, estimates) if cells.has_cost else None
    best = curve.best_single(cells.cost_ms, cells.mean.mean(0))
    choice = estimates.route(cells.cost_ms, [0.0]).choice[0]
    gain = cells.mean[np.arange(len(cells)), choice] - cells.mean[:, best]
    names, rows = np.array(cells.categories), []
    for name in sorted(set(cells.categories)):
        there = names == name
        if there.sum() >= LEAST_IN_CATEGORY:
            found = curve.bootstrap_mean(gain[there], cells.groups[there])
            rows.append(
                {
                    "name": name,
                    "prompts": int(there.sum()),
                    "trust": rounded(estimates.trust[there].mean()),
                    "gain": found.to_json(),
                    "mean_ms": None if spent is None else rounded(spent[there].mean()),
                }
            )
    return rows


def _spend_mean(cells: Cells, estimates: Estimates) -> FloatArray:
    """float64[prompts]: cost of each prompt if all together may take as long as with the mean-cost candidate."""
    cost = cells.cost_ms
    total = len(cells) * float(cost[curve.mean_cost_candidate(cost)]) * (1 + 1e-9)  # else rounding may put the cheapest above it
    return np.asarray(cost[allocate(estimates.mean, cost, total).choice])


def _compare_ms(cells: Cells, predicted: Mapping[str, float]) -> list[dict[str, Any]]:
    if not cells.has_cost:
        return []
    pairs = [(name, predicted[name], float(cost)) for name, cost in zip(cells.candidates, cells.cost_ms, strict=True) if name in predicted]
    return [
        {"name": name, "predicted_ms": rounded(ms), "labelled_ms": rounded(cost), "ratio": rounded(ms / cost) if cost > 0 else None}
        for name, ms, cost in pairs
    ]


def _finite(value: float) -> float | None:
    return rounded(value) if np.isfinite(value) else None
