"""Intervals by residuals, on labels whose spread is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.residuals import measure_reliability
from costroute_rt.judgement import EQUAL, LEVELS
from tests.export.router.test_fit import make

NORMAL = {0.5: 0.6745, 0.68: 0.9945, 0.8: 1.2816, 0.9: 1.6449, 0.95: 1.96}


def world(count: int, spread: tuple[float, float, float] = (0.1, 0.2, 0.4), seed: int = 0) -> tuple[Cells, np.ndarray]:
    """Labels whose residuals have this spread, with hidden cells, and the estimates."""
    rng = np.random.default_rng(seed)
    cells, estimate = make(count, seeds=1), rng.standard_normal((count, 3))
    labels = estimate + np.array(spread) * rng.standard_normal((count, 3))
    hidden = rng.random(labels.shape) < 0.3
    return replace(cells, mean=np.where(hidden, np.nan, labels), count=np.where(hidden, 0, 1)), estimate


def test_half_widths_are_quantiles_of_the_residuals() -> None:
    found = measure_reliability(*world(20_000))
    for level, row in zip(LEVELS, found.near, strict=True):
        np.testing.assert_allclose(row, NORMAL[level] * np.array([0.1, 0.2, 0.4]), rtol=0.05)
    np.testing.assert_array_equal(found.far, found.near)
    assert found.share.tolist() == [1, 1, 1]


@pytest.mark.parametrize("count", [40, 100])
def test_intervals_cover_what_they_promise_on_new_labels(count: int) -> None:
    covered = []
    for seed in range(60):
        found = measure_reliability(*world(count, seed=seed))
        new, estimate = world(300, seed=1000 + seed)
        missed = np.abs(new.mean - estimate)
        covered.append([(missed <= row)[new.count > 0].mean() for row in found.near])
    np.testing.assert_allclose(np.mean(covered, axis=0), LEVELS, atol=0.03)


def test_noise_of_labels_is_no_error_of_the_expected_quality() -> None:
    cells, estimate = world(20_000, (0.2, 0.2, 0.2))
    noisy = replace(cells, has_noise=True, variance=np.full(cells.mean.shape, 0.03))  # of 0.04
    np.testing.assert_allclose(measure_reliability(noisy, estimate).share, 0.5, atol=0.05)
    drowned = replace(noisy, variance=np.full(cells.mean.shape, 0.05))
    assert measure_reliability(drowned, estimate).share.tolist() == [0, 0, 0]


def test_differences_are_measured_pair_by_pair() -> None:
    cells, estimate = world(8000, (0.1, 0.2, 0.4))
    shared = replace(cells, mean=cells.mean + np.random.default_rng(9).standard_normal((8000, 1)))  # prompts differ in ease
    found = measure_reliability(shared, estimate).difference
    width = NORMAL[EQUAL]
    assert found[0, 1] == pytest.approx(width * np.hypot(0.1, 0.2), rel=0.05)
    assert found[0, 2] == pytest.approx(width * np.hypot(0.1, 0.4), rel=0.05)
    np.testing.assert_array_equal(found, found.T)
    assert np.diag(found).tolist() == [0, 0, 0]


def test_far_from_the_labels_intervals_are_never_narrower() -> None:
    cells, estimate = world(2000)
    apart = estimate + np.array([0.0, 0.5, 0.0]) * np.random.default_rng(3).standard_normal(estimate.shape)
    found = measure_reliability(cells, estimate, apart)
    assert (found.far >= found.near).all()
    assert (found.far[:, 1] > 1.5 * found.near[:, 1]).all()


def test_a_candidate_with_few_labels_borrows_from_the_others() -> None:
    cells, estimate = world(400)
    few = cells.count.copy()
    few[5:, 0] = 0
    found = measure_reliability(replace(cells, count=few), estimate)
    assert found.near[2, 0] > found.near[2, 1] / 2
