"""Deferral curves on labels whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.export.router import curve
from costroute_rt.export.router.curve import Curve, Interval, Routed

COST = np.array([1.0, 2.0, 4.0])


def two_kinds(count: int = 100) -> np.ndarray:
    """Half of the prompts are served as well by the cheapest candidate, the other half only by the most expensive one."""
    easy, hard = [0.8, 0.8, 0.8], [0.2, 0.4, 1.0]
    return np.array([easy if index % 2 else hard for index in range(count)])


def test_the_hull_omits_candidates_that_mixing_beats() -> None:
    costs, quality = np.array([3.0, 1.0, 2.0, 5.0, 4.0]), np.array([0.9, 0.1, 0.3, 0.95, 0.5])
    assert curve.hull_members(costs, quality) == [1, 0, 3]
    worse = curve.hull(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.6, 0.5]))
    assert worse.at([1.0, 1.5, 2.0, 3.0]) == pytest.approx([0.1, 0.35, 0.6, 0.6])


def test_of_two_candidates_of_the_same_cost_the_better_is_on_the_hull() -> None:
    assert curve.hull_members(np.array([1.0, 1.0]), np.array([0.2, 0.4])) == [1]


def test_the_multipliers_run_from_the_best_choice_to_the_cheapest() -> None:
    truth = two_kinds()
    routed = curve.route(truth, COST)
    assert routed.multiplier is not None
    assert routed.multiplier[0] == 0
    assert set(routed.choice[0]) == {0, 2}  # of equally good ones the cheapest
    assert set(routed.choice[-1]) == {0}
    assert np.all(np.diff(routed.points(COST, truth).cost) <= 0)


def test_a_perfect_router_saves_the_time_of_easy_prompts() -> None:
    truth = two_kinds()
    found = curve.routed_figures(curve.route(truth, COST), COST, truth)
    # At mean cost 2.5 it scores as the dearest candidate, 0.9; the hull runs from (1, 0.5) to (4, 0.9).
    assert found["gain"] == pytest.approx(0)
    assert found["qnc"] == pytest.approx(2.5 / 4)
    # The triangle over the hull with corners (1, 0.5), (2.5, 0.9), (4, 0.9), its area by the cost range.
    assert found["area"] == pytest.approx(0.5 * 1.5 * 0.4 / 3, rel=1e-6)
    # The mean cost is 7/3, so candidate 1 (cost 2, quality 0.6) is the mean-cost one.
    assert curve.mean_cost_candidate(COST) == 1
    assert found["gain_at_mean_cost"] == pytest.approx(0.5 + 0.4 / 1.5 - 0.6)
    assert found["over_hull_at_mean_cost"] == pytest.approx(0.4 / 1.5 - 0.4 / 3)


def test_an_uninformed_router_has_no_area() -> None:
    truth = two_kinds()
    flat = np.broadcast_to(truth.mean(0), truth.shape)
    found = curve.routed_figures(curve.route(flat, COST), COST, truth)
    assert found["area"] == pytest.approx(0, abs=1e-12)
    assert found["qnc"] == pytest.approx(1)
    assert found["gain"] == pytest.approx(0, abs=1e-12)


def test_a_router_that_is_wrong_is_below_the_hull_and_never_equals_the_best() -> None:
    truth = two_kinds()
    found = curve.routed_figures(curve.route(-truth, COST), COST, truth)
    assert found["area"] < -0.05
    assert found["gain"] < 0
    assert found["qnc"] == np.inf


def test_complementary_candidates_gain_over_the_best_single() -> None:
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = curve.routed_figures(curve.route(truth, np.array([1.0, 3.0])), np.array([1.0, 3.0]), truth)
    assert found["gain"] == pytest.approx(1 / 3)
    assert found["qnc"] == pytest.approx((1 + 2 / 3) / 3)  # on the way from (1, 1/3) to (7/3, 1), at 2/3


def test_equal_costs_have_no_area() -> None:
    truth = two_kinds()
    assert curve.routed_figures(curve.route(truth, np.ones(3)), np.ones(3), truth)["area"] == 0


def test_the_length_heuristic_gives_long_prompts_the_more_expensive_candidate() -> None:
    prompts = [" ".join(["word"] * (1 if index % 2 else 9)) for index in range(100)]
    truth = two_kinds()  # the long ones are the hard ones
    routed = curve.route_by_length(prompts, COST, truth.mean(0))
    assert curve.routed_figures(routed, COST, truth)["area"] == pytest.approx(0.5 * 1.5 * 0.4 / 3, rel=1e-6)
    backwards = [" ".join(["word"] * (9 if index % 2 else 1)) for index in range(100)]
    assert curve.routed_figures(curve.route_by_length(backwards, COST, truth.mean(0)), COST, truth)["area"] < 0


def test_shares_are_parts_of_all_prompts() -> None:
    shares = curve.route(two_kinds(), COST, [0.0]).shares(3)
    assert shares.tolist() == [[0.5, 0.0, 0.5]]


def test_the_curve_is_level_beyond_its_ends() -> None:
    line = Curve(cost=np.array([3.0, 1.0]), quality=np.array([0.7, 0.5]))
    assert line.at([0.0, 2.0, 9.0]) == pytest.approx([0.5, 0.6, 0.7])
    assert line.least_cost(0.4) == 1.0
    assert line.least_cost(0.8) == np.inf


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = curve.bootstrap_mean(rng.normal(0.3, 1.0, 80), np.arange(80), resamples=300, seed=trial)
        hits += found.low <= 0.3 <= found.high
    assert 178 <= hits <= 199


def test_repeated_texts_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=40), 10)
    together = curve.bootstrap_mean(values, np.repeat(np.arange(40), 10))
    apart = curve.bootstrap_mean(values, np.arange(400))
    assert together.high - together.low > 2 * (apart.high - apart.low)
    slow = curve.bootstrap(lambda weight: {"mean": float(np.average(values, weights=weight))}, np.repeat(np.arange(40), 10))["mean"]
    assert (slow.low, slow.high) == pytest.approx((together.low, together.high), abs=0.03)


def test_an_infinite_end_is_null_in_json() -> None:
    assert Interval(0.5, 0.25, float("inf")).to_json() == {"value": 0.5, "low": 0.25, "high": None}


def test_the_oracle_gains_nothing_from_noise_unlike_a_naive_one() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 4000, 5))
    costs = np.arange(1.0, 6.0)
    _, gain = curve.oracle([(first, second), (second, first)], costs)
    naive = first.max(1).mean() - first.mean(0).max()
    assert naive > 1
    assert gain < 0.03
    assert np.ptp(curve.shrink(first, np.ones_like(first)), axis=0).max() < 1


def test_the_oracle_finds_repeatable_differences() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(4000, 3))
    first, second = (truth + 0.3 * rng.normal(size=truth.shape) for _ in range(2))
    _, gain = curve.oracle([(first, second), (second, first)], np.ones(3))
    assert gain == pytest.approx(truth.max(1).mean(), abs=0.08)
    shrunk = curve.shrink(first, np.full_like(first, 0.09))
    assert np.corrcoef(shrunk[:, 0], truth[:, 0])[0, 1] > 0.9
    assert shrunk.var() < first.var()


def test_a_weight_counts_a_prompt_several_times() -> None:
    truth = two_kinds(4)
    routed = Routed(choice=np.array([[0, 1, 2, 0]]))
    twice = np.array([0, 0, 0, 1, 2, 3])
    weighted = curve.figures_by_weight(routed, COST, truth)(np.array([3.0, 1.0, 1.0, 1.0]))
    assert weighted == pytest.approx(curve.routed_figures(Routed(choice=routed.choice[:, twice]), COST, truth[twice]))
