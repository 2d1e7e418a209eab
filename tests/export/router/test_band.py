"""Intervals of deferral curves and of their heights above averages."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.export.router.band import GRID, MOST_BETWEEN, Band, cost_grid, sure_ranges
from tests.export.router.test_evaluate import estimates, judge, make


def test_every_curve_has_a_band_around_it() -> None:
    found = judge(make())
    assert set(found.bands) == set(found.curves) == {"router", "average", "length", "hull", "oracle"}
    for name, band in found.bands.items():
        assert band.value == pytest.approx(found.curves[name].at(band.cost), abs=1e-6), name
        assert (band.low <= band.value + 1e-9).all()
        assert (band.value <= band.high + 1e-9).all()
    assert (found.bands["router"].high - found.bands["router"].low).max() > 0


def test_heights_above_averages_are_measured_on_the_same_prompts() -> None:
    found = judge(make())
    level = found.curves["average"].at(found.bands["router"].cost)
    assert found.above_averages["router"].value == pytest.approx(found.bands["router"].value - level, abs=1e-6)
    assert found.above_averages["average"].value == pytest.approx(0, abs=1e-12)
    paired = found.above_averages["router"].high - found.above_averages["router"].low
    alone = found.bands["router"].high - found.bands["router"].low + found.bands["average"].high - found.bands["average"].low
    assert (paired <= alone + 1e-9).all()


def test_where_the_router_is_surely_better_is_inside_the_range_of_costs() -> None:
    ranges = judge(make()).sure_ms
    assert len(ranges) == 1
    low, high = ranges[0]
    assert 10 < low < 25 < high <= 40


def test_a_router_on_averages_is_nowhere_surely_better() -> None:
    from costroute_rt.export.router import evaluate as ev

    cells = make()
    found = ev.evaluate(cells, estimates(cells, know=False), resamples=20)
    assert found.sure_ms == []


def test_costs_are_denser_where_candidates_are_close_to_each_other() -> None:
    grid = cost_grid(np.array([1000.0, 100.0, 101.0]))
    assert (grid[0], grid[-1]) == (100, 1000)
    assert ((grid > 100) & (grid < 101)).sum() == 3
    assert (np.diff(grid) > 0).all()
    assert len(cost_grid(np.arange(1000.0))) <= GRID + MOST_BETWEEN
    assert cost_grid(np.array([5.0, 5.0])).tolist() == [5.0]


def test_ranges_are_runs_of_neighbouring_costs_whose_interval_is_above_zero() -> None:
    low = np.array([-1.0, 0.1, 0.2, 0.0, 0.3, -0.1])
    band = Band(cost=np.arange(6.0), value=low + 1, low=low, high=low + 2)
    assert sure_ranges(band) == [[1.0, 2.0]]
