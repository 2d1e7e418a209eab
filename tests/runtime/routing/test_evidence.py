"""The strict option: evidence of a gain at each trade-off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.routing.evidence import Evidence
from costroute_rt.routing.quality import Selected
from costroute_rt.routing.router import Router
from tests.runtime.fakes import FakeDevice
from tests.small_router import IS_LONG, make_router


def world(count: int = 400, gap: float = 0.2, noise: float = 0.1) -> Evidence:
    """The first candidate is better by `gap` for half of the prompts and worse for the others; the estimates predict this correctly."""
    rng = np.random.default_rng(0)
    side = np.where(np.arange(count) % 2, 0.5, -0.5)
    estimate = np.stack([0.5 + gap * side, 0.5 - gap * side], axis=1)
    return Evidence(estimate.astype(np.float32), (estimate + noise * rng.standard_normal(estimate.shape)).astype(np.float32))


def test_a_sure_gain_counts_in_full_and_none_not_at_all() -> None:
    evidence = world()
    assert evidence.share(np.zeros(2)) > 0.95
    assert evidence.share(np.array([0.0, 0.9])) == 0  # the first is always chosen: nothing is gained
    assert evidence.share(np.array([0.0, np.inf])) == 0
    assert world(noise=3.0).share(np.zeros(2)) < 0.9


def test_the_share_is_the_james_stein_factor_of_the_gain() -> None:
    evidence, penalty = world(noise=0.5), np.array([0.02, 0.0])
    labels, estimate = evidence.arrays()["labels"].astype(float), evidence.arrays()["estimate"].astype(float)
    value = labels - penalty
    gain = value[np.arange(400), (estimate - penalty).argmax(1)] - value[:, value.mean(0).argmax()]
    assert evidence.share(penalty) == pytest.approx(max(0, 1 - gain.var(ddof=1) / 400 / gain.mean() ** 2), abs=0.02)


@pytest.fixture
def strict(bundle: Bundle) -> Router:
    router = make_router(bundle.pool)
    labels = np.where(IS_LONG[:, None], router.judge("a red bird", None).mean[::-1], router.judge("a red bird", None).mean)
    drawn = np.random.default_rng(0).standard_normal(labels.shape)
    return replace(router, evidence=Evidence(labels.astype(np.float32), (labels + 0.01 * drawn).astype(np.float32)))


def test_where_nothing_is_gained_averages_decide(strict: Router) -> None:
    found = strict.judge("a red bird", None)
    sure, unsure = found.at(np.zeros(4)), found.at(np.array([0.0, np.inf, np.inf, np.inf]))
    np.testing.assert_allclose(sure.mean, found.mean, atol=0.01)
    np.testing.assert_allclose(unsure.mean, strict.average.mean)
    assert unsure.basis.endswith("strict: 0% of the prompt's effect counts at this trade-off")
    plain = replace(strict, evidence=None).judge("a red bird", None)
    assert plain.at(np.zeros(4)) is plain


def test_a_request_and_a_batch_ask_for_evidence(open_device: Callable[..., FakeDevice], strict: Router) -> None:
    device = open_device(quality=strict)
    route = device.runtime.route("a red bird", max_ms=60_000)
    assert route.judgement is not None
    assert "strict: 9" in route.judgement.basis or "strict: 100%" in route.judgement.basis
    for planned in device.runtime.plan(["a red bird", "a blue tree at night, with snow"] * 3, mean_ms=150):
        assert planned.judgement is not None
        assert "strict: " in planned.judgement.basis


def test_it_is_saved_with_the_router_and_selected(strict: Router, tmp_path: Path) -> None:
    strict.save(tmp_path)
    again = Router.load(tmp_path)
    assert again.evidence is not None
    assert again.evidence.share(np.zeros(4)) == pytest.approx(strict.evidence.share(np.zeros(4)), abs=1e-6)  # type: ignore[union-attr]
    some = Selected(strict, [3, 0]).judge("a red bird", None)
    assert some.at(np.zeros(2)).mean.shape == (2,)
