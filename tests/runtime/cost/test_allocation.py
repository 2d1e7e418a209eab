"""One budget over many prompts: never exceeded, well spent, and better than a share for each."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from costroute_rt.cost.allocation import allocate
from costroute_rt.error import BudgetError, ConfigError

COSTS = np.array([20.0, 50.0, 120.0, 400.0])


def make_quality(prompts: int, seed: int = 0) -> np.ndarray:
    """Rising with the cost, more steeply for some prompts than for others."""
    rng = np.random.default_rng(seed)
    return 0.5 + rng.uniform(0, 0.5, (prompts, 1)) * np.log(COSTS / 20) / 3 + 0.02 * rng.normal(size=(prompts, 4))


def worth(quality: np.ndarray, choice: np.ndarray) -> float:
    return float(quality[np.arange(len(choice)), choice].sum())


def test_with_time_for_everything_each_prompt_gets_its_best() -> None:
    quality = make_quality(50)
    allocation = allocate(quality, COSTS, 50 * 400)
    np.testing.assert_array_equal(allocation.choice, quality.argmax(1))
    assert allocation.multiplier == 0


@pytest.mark.parametrize("total_ms", [1000, 1001, 2500, 6000, 15000])
def test_the_budget_is_kept_and_spent(total_ms: float) -> None:
    quality = make_quality(50)
    allocation = allocate(quality, COSTS, total_ms)
    assert COSTS[allocation.choice].sum() == pytest.approx(allocation.total_ms)
    assert allocation.total_ms <= total_ms
    gain = quality - quality[np.arange(50), allocation.choice, None]
    extra = COSTS - COSTS[allocation.choice][:, None]
    assert not ((gain > 0) & (extra <= total_ms - allocation.total_ms)).any()  # no upgrade is left that fits


@pytest.mark.parametrize("seed", range(8))
def test_small_budgets_are_divided_nearly_as_well_as_can_be(seed: int) -> None:
    quality = make_quality(6, seed)
    for total_ms in (130, 300, 600, 1100):
        found = worth(quality, allocate(quality, COSTS, total_ms).choice)
        every = (np.array(choice) for choice in product(range(4), repeat=6))
        best = max(worth(quality, choice) for choice in every if COSTS[choice].sum() <= total_ms)
        assert best - 0.2 <= found <= best + 1e-9


@pytest.mark.parametrize("share_ms", [50, 120, 200])
def test_dividing_by_need_beats_a_share_for_each(share_ms: float) -> None:
    quality = make_quality(500)
    each = np.where(share_ms >= COSTS, quality, -np.inf).argmax(1)
    assert worth(quality, allocate(quality, COSTS, 500 * share_ms).choice) > worth(quality, each) + 1


def test_the_multiplier_is_the_price_at_which_prompts_choose() -> None:
    quality = make_quality(200)
    allocation = allocate(quality, COSTS, 200 * 100)
    alone = (quality - allocation.multiplier * COSTS).argmax(1)
    assert (alone != allocation.choice).mean() < 0.02


def test_more_time_is_never_worse() -> None:
    quality = make_quality(40)
    worths = [worth(quality, allocate(quality, COSTS, total_ms).choice) for total_ms in range(800, 16000, 400)]
    assert (np.diff(worths) > -0.05).all()


def test_costs_may_differ_between_prompts() -> None:
    quality, cost = np.array([[0.1, 0.9], [0.1, 0.9]]), np.array([[10.0, 100.0], [10.0, 20.0]])
    assert allocate(quality, cost, 40).choice.tolist() == [0, 1]


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_quality_may_have_any_unit(scale: float) -> None:
    quality = make_quality(30)
    np.testing.assert_array_equal(allocate(scale * quality, COSTS, 3000).choice, allocate(quality, COSTS, 3000).choice)


def test_equal_and_nearly_equal_costs_are_no_trouble() -> None:
    quality = make_quality(30)
    cost = np.array([20.0, 20.0, 20.0 + 1e-12, 400.0])
    allocation = allocate(quality, cost, 2000)
    assert allocation.total_ms <= 2000
    assert (allocation.choice > 0).any()
    np.testing.assert_array_equal(allocate(quality[:, :1], cost[:1], 600).choice, 0)


def test_too_little_time_names_what_is_needed() -> None:
    with pytest.raises(BudgetError, match=r"50 prompts do not fit in 999 ms.* 1000 ms"):
        allocate(make_quality(50), COSTS, 999)


@pytest.mark.parametrize("quality", [np.full((2, 4), np.nan), np.zeros((2, 0)), np.zeros(4)])
def test_what_is_no_table_of_numbers_is_refused(quality: np.ndarray) -> None:
    with pytest.raises(ConfigError):
        allocate(quality, COSTS if quality.shape[-1] else np.zeros(0), 1000)
