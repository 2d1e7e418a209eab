"""Divides one time budget over many prompts, so that the total expected quality is highest."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from costroute_rt.error import BudgetError, ConfigError

FloatArray = npt.NDArray[np.float64]
Choice = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Allocation:
    """A candidate for each prompt, within the budget."""

    choice: Choice
    """int64[prompts], indices of candidates."""
    multiplier: float
    """Quality that one millisecond is worth at this budget; 0 if every prompt gets its best candidate."""
    total_ms: float
    """Expected time of all prompts together."""


def allocate(quality: FloatArray, cost_ms: FloatArray, total_ms: float) -> Allocation:
    """Maximises the total quality within `total_ms`: argmax q - mu c for every prompt, with one mu for all.

    This is the optimum of the linear relaxation of the multiple-choice knapsack, which allows fractions of a prompt: upgrades along the
    upper convex hull of each prompt's candidates, the one of most quality per millisecond first (Sinha and Zoltners 1979). The remaining
    time is spent in the same order on upgrades that still fit, until none does.

    quality: float64[prompts, candidates]. cost_ms: float64[prompts, candidates] or float64[candidates], above 0.
    Raises BudgetError if even the cheapest candidates exceed the budget, ConfigError for numbers that are not finite.
    """
    quality = np.asarray(quality, dtype=np.float64)
    cost = np.broadcast_to(np.asarray(cost_ms, dtype=np.float64), quality.shape)
    if quality.ndim != 2 or not quality.shape[1] or not (np.isfinite(quality).all() and np.isfinite(cost).all()):
        raise ConfigError("quality and cost", quality.shape, "finite numbers, a row for each prompt and a column for each candidate")
    best = _first(quality == quality.max(1, keepdims=True), cost)
    if _total(cost, best) <= total_ms:
        return Allocation(best, 0.0, _total(cost, best))
    cheapest = _first(cost == cost.min(1, keepdims=True), -quality)
    if not _total(cost, cheapest) <= total_ms:
        raise BudgetError(total_ms, "the cheapest for each", _total(cost, cheapest), prompts=len(quality))
    choice, multiplier = _along_hulls(quality, cost, cheapest, total_ms)
    choice = _upgrade(quality, cost, choice, total_ms)
    return Allocation(choice, multiplier, _total(cost, choice))


def _first(allowed: npt.NDArray[np.bool_], key: FloatArray) -> Choice:
    """The allowed column of the lowest key in each row."""
    return np.asarray(np.where(allowed, key, np.inf).argmin(1), dtype=np.int64)


def _total(cost: FloatArray, choice: Choice) -> float:
    return float(np.take_along_axis(cost, choice[:, None], axis=1).sum())


def _along_hulls(quality: FloatArray, cost: FloatArray, choice: Choice, total_ms: float) -> tuple[Choice, float]:
    """Upgrades in falling order of quality per millisecond, up to the first that does not fit; returns the choice and its rate."""
    rows, columns, rates, extras = _hull_upgrades(quality, cost, choice)
    order = np.argsort(-rates, kind="stable")
    rows, columns, rates = rows[order], columns[order], rates[order]
    spent = _total(cost, choice) + np.cumsum(extras[order])
    count = int(np.searchsorted(spent, total_ms, side="right"))
    while True:
        upgraded = choice.copy()
        upgraded[rows[:count]] = columns[:count]  # of several upgrades of a row the last one counts
        if count == 0 or _total(cost, upgraded) <= total_ms:
            return upgraded, float(rates[min(count, len(rates) - 1)])
        count -= 1  # the sums differ by rounding


def _hull_upgrades(quality: FloatArray, cost: FloatArray, choice: Choice) -> tuple[Choice, Choice, FloatArray, FloatArray]:
    """Row, new column, quality per millisecond and extra milliseconds of each upgrade along the rows' upper convex hulls, in hull order."""
    rows, current, limit = np.arange(len(choice)), choice, np.full(len(choice), np.inf)
    found = []
    while len(rows):
        gain, extra = quality[rows] - quality[rows, current][:, None], cost[rows] - cost[rows, current][:, None]
        is_upgrade = (gain > 0) & (extra > 0)
        rate = np.where(is_upgrade, gain / np.where(is_upgrade, extra, 1.0), -np.inf)
        steepest = rate.max(1, keepdims=True)
        column = _first(rate == steepest, extra)
        kept = steepest[:, 0] > 0
        rows, current, limit = rows[kept], column[kept], np.minimum(steepest[kept, 0], limit[kept])  # rates fall, but for rounding
        found.append((rows, current, limit, extra[kept, current]))
    merged = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return merged[0], merged[1], merged[2], merged[3]


def _upgrade(quality: FloatArray, cost: FloatArray, choice: Choice, total_ms: float) -> Choice:
    """Spends the remaining time on upgrades, each time the one of most quality per millisecond, until none fits."""
    choice = choice.copy()
    left_ms = total_ms - _total(cost, choice)
    rows = np.arange(len(choice))
    gain, extra = quality - quality[rows, choice, None], cost - cost[rows, choice, None]
    fits = (gain > 0) & (extra > 0) & (extra <= left_ms)
    entries = zip(-gain[fits] / extra[fits], *np.nonzero(fits), choice[np.nonzero(fits)[0]], strict=True)
    heap = [(float(rate), int(row), int(column), int(start)) for rate, row, column, start in entries]
    heapq.heapify(heap)
    done = list[tuple[int, int]]()
    while heap:
        _, row, column, start = heapq.heappop(heap)
        more_ms = float(cost[row, column] - cost[row, start])
        if choice[row] != start or more_ms > left_ms:
            continue
        choice[row], left_ms = column, left_ms - more_ms
        done.append((row, start))
        for other in range(quality.shape[1]):
            gained, longer_ms = float(quality[row, other] - quality[row, column]), float(cost[row, other] - cost[row, column])
            if gained > 0 and 0 < longer_ms <= left_ms:
                heapq.heappush(heap, (-gained / longer_ms, row, other, column))
    while done and _total(cost, choice) > total_ms:  # the sums differ by rounding
        row, start = done.pop()
        choice[row] = start
    return choice
