"""Deferral curves: the mean quality that a router reaches at each mean cost, compared with choices that need no router.

A curve sweeps the multiplier lambda of argmax_m q_m(x) - lambda * c_m (CATImage, arXiv 2506.14753, eq. 5). `truth` holds the labels of
prompts that are labelled for every candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from costroute_rt.routing.array import FloatArray, IntArray

MULTIPLIERS = 64
LENGTH_SHARES = 33
"""Points between two neighbours on the hull at which the length heuristic is evaluated."""
RESAMPLES = 2000
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """The candidate for each prompt at each of several settings, from the most to the least expensive."""

    choice: IntArray
    """int64[settings, prompts]: numbers of candidates."""
    multiplier: FloatArray | None = None
    """float64[settings], quality per millisecond, rising; None if the choice was made without one."""

    def points(self, cost: FloatArray, truth: FloatArray) -> Curve:
        """Mean cost and quality of each setting."""
        return Curve(cost=cost[self.choice].mean(1), quality=truth[np.arange(len(truth)), self.choice].mean(1))

    def shares(self, candidates: int) -> FloatArray:
        """float64[settings, candidates]: share of the prompts that each candidate gets."""
        return np.stack([(self.choice == candidate).mean(1) for candidate in range(candidates)], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Mean quality by mean cost: linear between two points, as random mixing would be, and constant beyond the ends."""

    cost: FloatArray
    quality: FloatArray

    def at(self, cost: npt.ArrayLike) -> FloatArray:
        """Quality at these mean costs."""
        order = np.lexsort((self.quality, self.cost))
        return np.interp(np.asarray(cost, dtype=np.float64), self.cost[order], self.quality[order])

    def least_cost(self, quality: float) -> float:
        """The least mean cost at which the curve reaches `quality`; infinite if it never does."""
        order = np.lexsort((self.quality, self.cost))
        costs, values = self.cost[order], self.quality[order]
        reached = np.flatnonzero(values >= quality)
        if not len(reached):
            return float("inf")
        first = int(reached[0])
        if first == 0:
            return float(costs[0])
        before, after = values[first - 1], values[first]
        return float(costs[first - 1] + (costs[first] - costs[first - 1]) * (quality - before) / (after - before))


def multipliers(estimate: FloatArray, cost: FloatArray, count: int = MULTIPLIERS) -> FloatArray:
    """float64[count or fewer], from 0 to where every prompt gets the cheapest candidate, with equally many switching points in between.

    A prompt switches from one candidate to a cheaper one where lambda exceeds their difference in quality over that in cost.
    """
    dearer, cheaper = np.nonzero(cost[:, None] > cost[None, :])
    slopes = (estimate[:, dearer] - estimate[:, cheaper]) / (cost[dearer] - cost[cheaper])
    slopes = slopes[slopes > 0]
    if not slopes.size:
        return np.zeros(1)
    inner = np.quantile(slopes, np.linspace(0, 1, count - 2))
    return np.unique(np.concatenate([[0.0], inner, [1.001 * slopes.max()]]))


def route(estimate: FloatArray, cost: FloatArray, lam: npt.ArrayLike | None = None) -> Routed:
    """argmax estimate - lambda * cost for each multiplier (default: `multipliers` of the estimate); of equal values the cheapest.

    estimate: float64[prompts, candidates]. cost: float64[candidates].
    """
    grid = multipliers(estimate, cost) if lam is None else np.atleast_1d(np.asarray(lam, dtype=np.float64))
    order = np.argsort(cost, kind="stable")
    choice = np.stack([order[np.argmax(estimate[:, order] - each * cost[order], axis=1)] for each in grid])
    return Routed(choice=choice.astype(np.int64), multiplier=grid)


def hull(cost: FloatArray, quality: FloatArray) -> Curve:
    """The best curve that random mixing of single candidates reaches: their upper concave hull.

    cost, quality: float64[candidates].
    """
    members = hull_members(cost, quality)
    return Curve(cost=cost[members], quality=quality[members])


def hull_members(cost: FloatArray, quality: FloatArray) -> list[int]:
    """Numbers of the candidates on the hull, from the cheapest to the best (Andrew's monotone chain)."""
    kept: list[int] = []
    for index in map(int, np.lexsort((-quality, cost))):
        if kept and quality[index] <= quality[kept[-1]]:
            continue
        while len(kept) >= 2 and _turns_up(cost, quality, kept[-2], kept[-1], index):
            kept.pop()
        kept.append(index)
    return kept


def _turns_up(cost: FloatArray, quality: FloatArray, a: int, b: int, c: int) -> bool:
    """Whether b lies on or under the line from a to c."""
    return bool((quality[b] - quality[a]) * (cost[c] - cost[a]) <= (quality[c] - quality[a]) * (cost[b] - cost[a]))


def area_above(curve: Curve, base: Curve, cost: FloatArray, points: int = 257) -> float:
    """Mean height of a curve above another, from the least to the greatest candidate cost; 0 if all cost the same."""
    low, high = float(cost.min()), float(cost.max())
    if not high > low:
        return 0.0
    grid = np.unique(np.concatenate([np.linspace(low, high, points), curve.cost.clip(low, high), base.cost.clip(low, high)]))
    return _trapezium(curve.at(grid) - base.at(grid), grid) / (high - low)


def _trapezium(height: FloatArray, at: FloatArray) -> float:
    return float(((height[1:] + height[:-1]) / 2 * np.diff(at)).sum())


def mean_cost_candidate(cost: FloatArray) -> int:
    """The candidate whose cost is nearest to the mean cost; of two the cheaper."""
    order = np.argsort(cost, kind="stable")
    return int(order[np.argmin(np.abs(cost[order] - cost.mean()))])


def best_single(cost: FloatArray, quality: FloatArray) -> int:
    """The candidate with the best mean quality; of equal ones the cheapest."""
    return int(np.lexsort((cost, -quality))[0])


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Plain data; infinite values are null."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(f"{end:.6g}") if np.isfinite(end) else None for name, end in ends.items()}


def curve_figures(found: Curve, cost: FloatArray, singles: FloatArray) -> dict[str, float]:
    """A curve's figures compared with single candidates and their hull; its first point is the most expensive one.

    cost, singles: float64[candidates], the latter their mean quality on the same prompts.
    area: mean height above the hull. qnc: least cost at which the curve equals the best single candidate, relative to that one's cost.
    gain: quality of the first point minus that of the best single candidate. gain_at_mean_cost, over_hull_at_mean_cost: at the cost of the
    mean-cost candidate, the gain over that candidate and over the hull.
    """
    base, best, middle = hull(cost, singles), best_single(cost, singles), mean_cost_candidate(cost)
    there = float(found.at(cost[middle]))
    return {
        "area": area_above(found, base, cost),
        "qnc": found.least_cost(float(singles[best])) / float(cost[best]) if cost[best] > 0 else float("nan"),
        "gain": float(found.quality[0] - singles[best]),
        "gain_at_mean_cost": there - float(singles[middle]),
        "over_hull_at_mean_cost": there - float(base.at(cost[middle])),
    }


def routed_figures(routed: Routed, cost: FloatArray, truth: FloatArray) -> dict[str, float]:
    """The figures of `curve_figures`, all on the same prompts."""
    return figures_by_weight(routed, cost, truth)(np.ones(len(truth)))


def figures_by_weight(routed: Routed, cost: FloatArray, truth: FloatArray) -> Callable[[FloatArray], dict[str, float]]:
    """The same as a function of each prompt's weight, for `bootstrap`; the best single candidate is found anew each time."""
    scored, paid = truth[np.arange(len(truth)), routed.choice], cost[routed.choice]

    def figures(weight: FloatArray) -> dict[str, float]:
        total = weight.sum()
        found = Curve(cost=paid @ weight / total, quality=scored @ weight / total)
        return curve_figures(found, cost, weight @ truth / total)

    return figures


def bootstrap(
    measure: Callable[[FloatArray], dict[str, float]], groups: IntArray, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Each figure of `measure` with its 95 % percentile interval over prompts (Efron 1979); prompts of a group are drawn together.

    measure: takes float64[prompts], the weight of each prompt.
    """
    middle = measure(np.ones(len(groups)))
    members = np.unique(groups, return_inverse=True)[1].ravel()
    count = int(members.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = [measure(np.bincount(rng.integers(0, count, count), minlength=count)[members].astype(np.float64)) for _ in range(resamples)]
    ends = {name: np.percentile([each[name] for each in drawn], [2.5, 97.5], method="nearest") for name in middle}
    return {name: Interval(value, float(ends[name][0]), float(ends[name][1])) for name, value in middle.items()}


def bootstrap_mean(values: FloatArray, groups: IntArray, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of one value per prompt with the interval of `bootstrap`, faster."""
    members = np.unique(groups, return_inverse=True)[1].ravel()
    sums, sizes = np.bincount(members, values), np.bincount(members).astype(np.float64)
    rng, found, step = np.random.default_rng(seed), [], max(1, _CHUNK_BYTES // (8 * len(sums)))
    for start in range(0, resamples, step):
        drawn = rng.integers(0, len(sums), (min(step, resamples - start), len(sums)))
        found.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def route_by_length(prompts: Sequence[str], cost: FloatArray, quality: FloatArray) -> Routed:
    """The prompt-length heuristic: mixes two neighbours on the hull, giving the more expensive one to the prompts with more words.

    quality: float64[candidates], mean of each single candidate.
    """
    words = np.array([len(prompt.split()) for prompt in prompts])
    rank = np.argsort(np.lexsort((np.arange(len(words)), -words)))
    members = hull_members(cost, quality)
    rows = [np.full(len(words), members[-1])]
    for cheap, dear in reversed(list(pairwise(members))):
        rows += [np.where(rank < round(share * len(words)), dear, cheap) for share in np.linspace(1, 0, LENGTH_SHARES)[1:]]
    return Routed(choice=np.array(rows, dtype=np.int64))


def shrink(mean: FloatArray, variance: FloatArray) -> FloatArray:
    """Labels shrunk towards their candidate's average according to their noise (empirical Bayes); float64[prompts, candidates]."""
    centre = mean.mean(0)
    between = np.maximum(mean.var(0) - variance.mean(0), 0)
    return np.asarray(centre + (mean - centre) * (between / np.maximum(between + variance, 1e-300)), dtype=np.float64)


def oracle(halves: Sequence[tuple[FloatArray, FloatArray]], cost: FloatArray) -> tuple[Curve, float]:
    """An upper bound for routers: candidates chosen by the labels of half of the seeds, scored by those of the other half, both ways.

    halves: two pairs of (estimate from one half of the seeds, mean of the *other* half), float64[prompts, candidates] each.
    Returns the curve, whose points are means of both ways at the same multiplier, and its gain over the best single candidate.
    """
    curves = [routed.points(cost, truth) for routed, (_, truth) in zip(route_halves(halves, cost), halves, strict=True)]
    curve = Curve(cost=np.mean([each.cost for each in curves], axis=0), quality=np.mean([each.quality for each in curves], axis=0))
    gains = [each.quality[0] - truth.mean(0).max() for each, (_, truth) in zip(curves, halves, strict=True)]
    return curve, float(np.mean(gains))


def route_halves(halves: Sequence[tuple[FloatArray, FloatArray]], cost: FloatArray) -> list[Routed]:
    """The choices of `oracle`, both ways."""
    grid = multipliers(np.concatenate([estimate for estimate, _ in halves]), cost)
    return [route(estimate, cost, grid) for estimate, _ in halves]
