"""Fewer features per prompt."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.routing.prompt_encoder import HashedEncoder
from costroute_rt.routing.reduction import Reduction


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)], ids=["tall", "wide"])
def test_a_reduction_keeps_distances_when_it_keeps_every_direction(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    reduced = Reduction.fit(features, 40).apply(features)
    assert np.linalg.norm(reduced, axis=1).mean() == pytest.approx(1, abs=1e-3)
    before, after = (np.linalg.norm(x[:, None] - x[None], axis=2) for x in (features, reduced))
    np.testing.assert_allclose(after * before[0, 1] / after[0, 1], before, rtol=1e-3, atol=1e-3)


def test_a_reduction_keeps_the_leading_directions() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(50, 10)) * np.array([9, 5] + [0.01] * 8)).astype(np.float32)
    reduction = Reduction.fit(features, 2)
    assert reduction.width == 2
    assert np.abs(np.corrcoef(reduction.apply(features)[:, 0], features[:, 0])[0, 1]) > 0.99


def test_few_prompts_are_reduced_as_many_are() -> None:
    words = ("red", "blue", "green", "old", "new", "small", "big", "wet", "dry", "far")
    features = HashedEncoder(256).encode([f"a {word} house by a lake" for word in words])
    reduction = Reduction.fit(features, 4)
    np.testing.assert_allclose(reduction.apply(features[:1]), reduction.apply(features)[:1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prompts", [1, 5])
def test_equal_prompts_are_reduced_to_nothing(prompts: int) -> None:
    features = np.ones((prompts, 6), dtype=np.float32)
    np.testing.assert_array_equal(Reduction.fit(features).apply(features), np.zeros((prompts, 1)))


def test_a_reduction_is_read_back_or_refused() -> None:
    reduction = Reduction.fit(np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32), 2)
    again = Reduction.from_saved(reduction.arrays())
    np.testing.assert_array_equal(again.components, reduction.components)
    with pytest.raises(ValueError, match="fit"):
        Reduction.from_saved({"center": reduction.center[1:], "components": reduction.components})
    with pytest.raises(ValueError, match="finite"):
        Reduction.from_saved({"center": reduction.center * np.nan, "components": reduction.components})
