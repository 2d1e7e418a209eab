"""Honest errors: how a router's judgements use them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.judgement import LEVELS
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.quality import Selected
from costroute_rt.routing.reliability import Reliability
from costroute_rt.routing.router import Router
from costroute_rt.routing.shrinkage import Shrinkage

NEAR = np.outer([0.1, 0.2, 0.3, 0.4, 0.5], [1.0, 2.0, 3.0, 4.0])
MEASURED = Reliability(NEAR, 2 * NEAR, np.array([1.0, 0.5, 1.0, 1.0]), np.full((4, 4), 0.05))


def test_a_judgement_has_intervals_that_grow_with_distance(router: Router) -> None:
    honest = replace(router, reliability=MEASURED)
    near, far = honest.judge("a red bird", None), honest.judge("quarterly tax return spreadsheet", None)
    assert (near.trust, far.trust) == (1, 0)
    np.testing.assert_allclose(near.standard_error, [0.2, 0.2, 0.6, 0.8])
    np.testing.assert_allclose(far.standard_error, [0.4, 0.4, 1.2, 1.6])
    assert near.label_interval(1) == pytest.approx((near.mean[1] - 0.6, near.mean[1] + 0.6))
    assert far.label_interval(0, 0.95) == pytest.approx((far.mean[0] - 1.0, far.mean[0] + 1.0))
    assert far.differences is not None
    assert far.differences.max() == pytest.approx(0.1)
    np.testing.assert_allclose(honest.estimate(["a red bird"], None)[1][0], near.standard_error)


def test_between_near_and_far_the_intervals_are_between(router: Router) -> None:
    between = replace(MEASURED, far=NEAR * [1.0, 2.0, 3.0, 4.0])
    trust = np.array([1.0, 0.25, 0.0])
    factor = 1 + np.outer([0, 0.75, 1], [0, 1, 2, 3])
    np.testing.assert_allclose(between.label_widths(trust), NEAR[:, None] * factor)
    np.testing.assert_allclose(between.errors(trust), factor * [0.2, 0.2, 0.6, 0.8])
    for index in range(3):
        wider = np.maximum(factor[index][:, None], factor[index][None])
        np.testing.assert_allclose(between.differences(float(trust[index])), 0.05 * wider)


def test_measured_errors_replace_those_of_the_estimator_which_are_not_computed(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = replace(router, reliability=MEASURED, near=0.2, far=0.9, shrinkage=Shrinkage(0.8, 0.1))
    some = replace(honest, reliability=replace(MEASURED, near=NEAR * [1, 0, 1, 1]))
    for prompt in ("a red bird", "a yellow bird over stones", "tax return"):
        one, other = honest.judge(prompt, None), some.judge(prompt, None)
        np.testing.assert_array_equal(one.mean, other.mean)
        np.testing.assert_array_equal(one.standard_error[[0, 2, 3]], other.standard_error[[0, 2, 3]])
    monkeypatch.setattr(Linear, "estimate", None)
    honest.judge("a red bird", None)
    with pytest.raises(TypeError):
        some.judge("a red bird", None)


def test_averages_have_intervals_too(router: Router) -> None:
    level = replace(router, reliability=MEASURED, shrinkage=Shrinkage(0.0)).judge("a red bird", None)
    assert level.label_interval(0) == pytest.approx((level.mean[0] - 0.3, level.mean[0] + 0.3))


def test_equal_within_error_is_a_matter_of_the_difference(router: Router) -> None:
    found = replace(router, reliability=MEASURED).judge("a red bird", None)
    gaps = np.abs(found.mean[:, None] - found.mean[None, :])
    for one in range(4):
        for other in range(4):
            assert found.is_equal(one, other) == (gaps[one, other] <= 0.05)
    assert found.is_equal(0, 1) != found.is_equal(0, 3)
    assert not router.judge("a red bird", None).is_equal(0, 1)  # never measured


def test_a_selection_keeps_its_own_errors(router: Router) -> None:
    some = Selected(replace(router, reliability=MEASURED), [3, 1]).judge("a red bird", None)
    assert some.label_widths is not None
    np.testing.assert_allclose(some.label_widths[0], [0.4, 0.2])
    assert some.differences is not None
    assert some.differences.shape == (2, 2)


def test_an_added_candidate_keeps_the_estimators_own_error(router: Router) -> None:
    wider = MEASURED.extended([0, 4, 1, 2, 3])
    assert wider.near[:, 1].tolist() == [0] * len(LEVELS)
    own = np.full((1, 5), 0.07)
    np.testing.assert_allclose(wider.errors(np.ones(1), own), [[0.2, 0.07, 0.2, 0.6, 0.8]])


def test_it_is_saved_with_the_router(router: Router, tmp_path: Path) -> None:
    replace(router, reliability=MEASURED).save(tmp_path)
    again = Router.load(tmp_path).reliability
    assert again is not None
    for name, array in MEASURED.arrays().items():
        np.testing.assert_allclose(again.arrays()[name], array, rtol=1e-6)


def test_errors_of_other_candidates_are_refused(router: Router) -> None:
    with pytest.raises(ConfigError, match="reliability"):
        replace(router, reliability=MEASURED.extended([0, 1, 2, 3, 4]))
    with pytest.raises(ValueError, match="below 0"):
        replace(MEASURED, near=-NEAR)
