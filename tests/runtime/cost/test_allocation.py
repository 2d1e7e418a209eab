"""Allocation of one budget to many prompts: it is never exceeded, and spent better than in equal shares."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from costroute_rt.cost.allocation import allocate
from costroute_rt.error import BudgetError, ConfigError

COSTS = np.array([20.0, 50.0, 120.0, 400.0])


def make_quality(prompts: int, seed: int = 0) -> np.ndarray:
    """Qualities that rise with the cost, more steeply for some prompts than for others."""
    rng = np.random.default_rng(seed)
    return 0.5 + rng.uniform(0, 0.5, (prompts, 1)) * np.log(COSTS / 20) / 3 + 0.02 * rng.normal(size=(prompts, 4))


def total_quality(quality: np.ndarray, choice: np.ndarray) -> float:
    return float(quality[np.arange(len(choice)), choice].sum())


def test_with_a_large_budget_each_prompt_gets_its_best_candidate() -> None:
    quality = make_quality(50)
    allocation = allocate(quality, COSTS, 50 * 400)
    np.testing.assert_array_equal(allocation.choice, quality.argmax(1))
    assert allocation.multiplier == 0


@pytest.mark.parametrize("total_ms", [1000, 1001, 2500, 6000, 15000])
def test_the_budget_is_kept_and_no_affordable_upgrade_is_left(total_ms: float) -> None:
    quality = make_quality(50)
    allocation = allocate(quality, COSTS, total_ms)
    assert COSTS[allocation.choice].sum() == pytest.approx(allocation.total_ms)
    assert allocation.total_ms <= total_ms
    gain = quality - quality[np.arange(50), allocation.choice, None]
    extra = COSTS - COSTS[allocation.choice][:, None]
    assert not ((gain > 0) & (extra <= total_ms - allocation.total_ms)).any()  # no upgrade fits the remaining time


@pytest.mark.parametrize("seed", range(8))
def test_the_allocation_is_close_to_the_exhaustive_optimum(seed: int) -> None:
    quality = make_quality(6, seed)
    for total_ms in (130, 300, 600, 1100):
        found = total_quality(quality, allocate(quality, COSTS, total_ms).choice)
        every = (np.array(choice) for choice in product(range(4), repeat=6))
        best = max(total_quality(quality, choice) for choice in every if COSTS[choice].sum() <= total_ms)
        assert best - 0.2 <= found <= best + 1e-9


@pytest.mark.parametrize("share_ms", [50, 120, 200])
def test_the_allocation_beats_an_equal_share_per_prompt(share_ms: float) -> None:
    quality = make_quality(500)
    each = np.where(share_ms >= COSTS, quality, -np.inf).argmax(1)
    assert total_quality(quality, allocate(quality, COSTS, 500 * share_ms).choice) > total_quality(quality, each) + 1


def test_prompts_choosing_by_the_multiplier_alone_nearly_give_the_allocation() -> None:
    quality = make_quality(200)
    allocation = allocate(quality, COSTS, 200 * 100)
    alone = (quality - allocation.multiplier * COSTS).argmax(1)
    assert (alone != allocation.choice).mean() < 0.02


def test_more_time_does_not_lower_the_quality() -> None:
    quality = make_quality(40)
    totals = [total_quality(quality, allocate(quality, COSTS, total_ms).choice) for total_ms in range(800, 16000, 400)]
    assert (np.diff(totals) > -0.05).all()


def test_costs_may_differ_between_prompts() -> None:
    quality, cost = np.array([[0.1, 0.9], [0.1, 0.9]]), np.array([[10.0, 100.0], [10.0, 20.0]])
    assert allocate(quality, cost, 40).choice.tolist() == [0, 1]


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_allocation_does_not_depend_on_the_unit_of_quality(scale: float) -> None:
    quality = make_quality(30)
    np.testing.assert_array_equal(allocate(scale * quality, COSTS, 3000).choice, allocate(quality, COSTS, 3000).choice)


def test_equal_and_nearly_equal_costs_are_handled() -> None:
    quality = make_quality(30)
    cost = np.array([20.0, 20.0, 20.0 + 1e-12, 400.0])
    allocation = allocate(quality, cost, 2000)
    assert allocation.total_ms <= 2000
    assert (allocation.choice > 0).any()
    np.testing.assert_array_equal(allocate(quality[:, :1], cost[:1], 600).choice, 0)


def test_the_error_for_too_little_time_names_the_time_needed() -> None:
    with pytest.raises(BudgetError, match=r"50 prompts do not fit in 999 ms.* 1000 ms"):
        allocate(make_quality(50), COSTS, 999)


@pytest.mark.parametrize("quality", [np.full((2, 4), np.nan), np.zeros((2, 0)), np.zeros(4)])
def test_quality_that_is_not_a_finite_table_is_refused(quality: np.ndarray) -> None:
    with pytest.raises(ConfigError):
        allocate(quality, COSTS if quality.shape[-1] else np.zeros(0), 1000)


def allocate_slowly(quality: np.ndarray, cost: np.ndarray, total_ms: float) -> np.ndarray:
    """Bisects the multiplier, then buys single upgrades, the one of most quality per millisecond first: quadratic, but plain."""
    cost, rows = np.broadcast_to(cost, quality.shape), np.arange(len(quality))
    low, high, choice = 0.0, 1e9, cost.argmin(1)
    for _ in range(200):
        middle = (low + high) / 2
        value = quality - middle * cost
        found = np.where(value >= value.max(1, keepdims=True), cost, np.inf).argmin(1)
        if cost[rows, found].sum() <= total_ms:
            high, choice = middle, found
        else:
            low = middle
    while True:
        gain, extra = quality - quality[rows, choice, None], cost - cost[rows, choice, None]
        fits = (gain > 0) & (extra > 0) & (extra <= total_ms - cost[rows, choice].sum())
        rate = np.where(fits, gain / np.where(fits, extra, 1), 0)
        row, column = np.unravel_index(rate.argmax(), rate.shape)
        if rate[row, column] <= 0:
            return choice
        choice[row] = column


@pytest.mark.parametrize("own_costs", [False, True])
def test_the_allocation_is_that_of_single_upgrades_one_after_the_other(own_costs: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        prompts, candidates = rng.integers(1, 12), rng.integers(1, 6)
        quality = rng.normal(size=(prompts, candidates))
        cost = rng.uniform(1, 100, (prompts, candidates) if own_costs else (candidates,))
        ends = [np.broadcast_to(cost, quality.shape).min(1).sum(), np.broadcast_to(cost, quality.shape).max(1).sum()]
        total_ms = float(rng.uniform(*ends)) if candidates > 1 else ends[1] + 1e-6
        allocation = allocate(quality, cost, total_ms)
        assert allocation.total_ms <= total_ms
        slow = total_quality(quality, allocate_slowly(quality, cost, total_ms))
        assert total_quality(quality, allocation.choice) >= slow - 1e-9


def test_of_equally_cheap_candidates_the_better_is_the_least() -> None:
    assert allocate(np.array([[0.1, 0.5, 0.9]] * 3), np.array([20.0, 20.0, 500.0]), 100).choice.tolist() == [1, 1, 1]


def test_equal_prompts_share_the_budget() -> None:
    allocation = allocate(np.tile([0.5, 0.6, 0.8, 0.9], (1000, 1)), COSTS, 1000 * 60)
    assert 59_800 <= allocation.total_ms <= 60_000
    assert allocation.multiplier == pytest.approx(0.2 / 70)
    assert set(allocation.choice.tolist()) == {1, 2}
