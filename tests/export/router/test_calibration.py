"""Coverage of intervals, near the fitted labels and far from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costroute_rt.export.router.calibration import coverage
from costroute_rt.judgement import LEVELS
from tests.export.router.test_evaluate import estimates, make


def test_coverage_is_that_of_near_and_far_prompts_apart() -> None:
    cells = make(200)
    judged, near = estimates(cells), np.arange(200) < 150
    error = np.abs(cells.mean - judged.mean)
    widths = np.where(near[:, None], np.quantile(error[near], np.array(LEVELS))[:, None, None], 0.0) * np.ones(error.shape)
    rows = coverage(cells, replace(judged, trust=np.where(near, 1.0, 0.2), label_widths=widths), resamples=50)
    for row in rows:
        assert (row["near"], row["far"]) == (300, 100)
        assert row["covered_near"] == pytest.approx(row["level"], abs=0.02)
        assert row["covered_far"] == pytest.approx(0, abs=0.02)
        assert row["covered"] == pytest.approx(0.75 * row["covered_near"] + 0.25 * row["covered_far"], abs=1e-5)
        low, high = row["covered_near_interval"]
        assert low <= row["covered_near"] <= high
        assert low < high


def test_without_far_prompts_their_share_is_unknown() -> None:
    cells = make(20)
    judged = estimates(cells)
    rows = coverage(cells, replace(judged, label_widths=np.ones((len(LEVELS), *cells.mean.shape))), resamples=20)
    assert all(row["covered_far"] is None and row["covered_far_interval"] is None and row["covered"] == 1 for row in rows)
    assert coverage(cells, judged) == []


def test_prompts_of_the_same_text_are_one_draw() -> None:
    cells = make(100)
    judged = replace(estimates(cells), label_widths=np.full((len(LEVELS), *cells.mean.shape), 0.02))
    apart = coverage(cells, judged, resamples=200)[0]["covered_interval"]
    together = coverage(replace(cells, groups=np.arange(100) // 25), judged, resamples=200)[0]["covered_interval"]
    assert together != apart
