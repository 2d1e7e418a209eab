"""Divides one time budget over many prompts, so that the total expected quality is highest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from costroute_rt.error import BudgetError, ConfigError

FloatArray = npt.NDArray[np.float64]

_BISECTIONS, _DOUBLINGS = 60, 200


@dataclass(frozen=True, slots=True)
class Allocation:
    """A candidate for each prompt, within the budget."""

    choice: npt.NDArray[np.int64]
    """int64[prompts], indices of candidates."""
    multiplier: float
    """Quality that one millisecond is worth at this budget; 0 if every prompt gets its best candidate."""
    total_ms: float
    """Expected time of all prompts together."""


def allocate(quality: FloatArray, cost_ms: FloatArray, total_ms: float) -> Allocation:
    """Maximises the total quality within `total_ms`: argmax q - mu c for every prompt, with one mu for all.

    This is the optimum of the Lagrangian relaxation of the multiple-choice knapsack (Everett 1963), which allows fractions of a prompt.
    The remaining time is spent on single upgrades, the one of most quality per millisecond first, until none fits.

    quality: float64[prompts, candidates]. cost_ms: float64[prompts, candidates] or float64[candidates], above 0.
    Raises BudgetError if even the cheapest candidates exceed the budget, ConfigError for numbers that are not finite.
    """
    quality = np.asarray(quality, dtype=np.float64)
    cost = np.broadcast_to(np.asarray(cost_ms, dtype=np.float64), quality.shape)
    if quality.ndim != 2 or not quality.shape[1] or not (np.isfinite(quality).all() and np.isfinite(cost).all()):
        raise ConfigError("quality and cost", quality.shape, "finite numbers, a row for each prompt and a column for each candidate")
    choice = _choose(quality, cost, 0.0)
    if _total(cost, choice) <= total_ms:
        return Allocation(choice, 0.0, _total(cost, choice))
    cheapest = _total(cost, cost.argmin(1))
    if not cheapest <= total_ms:
        raise BudgetError(total_ms, "the cheapest for each", cheapest, prompts=len(quality))
    multiplier, choice = _bisect(quality, cost, total_ms)
    choice = _upgrade(quality, cost, choice, total_ms)
    return Allocation(choice, multiplier, _total(cost, choice))


def _choose(quality: FloatArray, cost: FloatArray, multiplier: float) -> npt.NDArray[np.int64]:
    """argmax q - multiplier * c of each row; the cheapest candidate wins a tie."""
    value = quality - multiplier * cost
    best = value >= value.max(1, keepdims=True)
    return np.asarray(np.where(best, cost, np.inf).argmin(1), dtype=np.int64)


def _total(cost: FloatArray, choice: npt.NDArray[np.int64]) -> float:
    return float(np.take_along_axis(cost, choice[:, None], axis=1).sum())


def _bisect(quality: FloatArray, cost: FloatArray, total_ms: float) -> tuple[float, npt.NDArray[np.int64]]:
    """The smallest multiplier, to float precision, whose choice fits, and that choice; a large one chooses the cheapest candidates."""
    low, fitting = 0.0, cost.argmin(1)
    high = max(float(np.ptp(quality, axis=1).max()), 1e-12) / max(float(cost.mean()), 1e-12)
    for _ in range(_DOUBLINGS):
        if _total(cost, _choose(quality, cost, high)) <= total_ms:
            break
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        choice = _choose(quality, cost, middle)
        if _total(cost, choice) <= total_ms:
            high, fitting = middle, choice
        else:
            low = middle
    return high, fitting


def _upgrade(quality: FloatArray, cost: FloatArray, choice: npt.NDArray[np.int64], total_ms: float) -> npt.NDArray[np.int64]:
    """Spends the remaining time on upgrades, each time the one of most quality per millisecond, until none fits."""
    choice = choice.copy()
    rows = np.arange(len(choice))
    gain, extra = quality - quality[rows, choice, None], cost - cost[rows, choice, None]
    while True:
        left = total_ms - _total(cost, choice)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where((gain > 0) & (extra <= left), np.where(extra > 0, gain / extra, np.inf), 0.0)
        row, column = np.unravel_index(int(rate.argmax()), rate.shape)
        if rate[row, column] <= 0:
            return choice
        choice[row] = column
        gain[row], extra[row] = quality[row] - quality[row, column], cost[row] - cost[row, column]
