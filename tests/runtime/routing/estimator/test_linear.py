"""Ridge regression and its errors."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.routing.estimator.linear import Linear
from tests.runtime.routing.estimator.world import World


def test_a_ridge_fit_is_the_textbook_one() -> None:
    world, alpha = World(), 2.0
    mean = Linear.fit(world.features, world.mean, np.ones_like(world.mean), alpha=alpha).estimate(world.features, None)[0]
    x = world.features - world.features.mean(0, dtype=np.float64)
    beta = np.linalg.solve(x.T @ x + alpha * np.eye(8), x.T @ world.mean)
    np.testing.assert_allclose(mean, world.mean.mean(0) + x @ beta, rtol=1e-6)


@pytest.mark.parametrize(("noisier", "fits"), [((2, 2.2, 2.4), 1), ((1, 1, 100), 3)])
def test_candidates_with_similar_label_weights_share_one_fit(noisier: tuple[float, ...], fits: int) -> None:
    world, few = World(noise=0.1), np.arange(200) % 3 == 0
    world.variance[few] *= noisier
    together = Linear.fit(world.features, world.mean, world.variance)
    alone = [Linear.fit(world.features, world.mean[:, [index]], world.variance[:, [index]]) for index in range(3)]
    assert (len(together.center), len(together.inverse)) == (fits, 1)
    for index, each in enumerate(alone):
        np.testing.assert_allclose(together.estimate(world.features)[0][:, index], each.estimate(world.features)[0][:, 0], atol=0.02)


def test_errors_of_a_linear_fit_cover_the_truth() -> None:
    inside = []
    for seed in range(20):
        world = World(60, noise=0.2, seed=seed)
        mean, error = Linear.fit(world.features, world.mean, world.variance, alpha=0.1).estimate(world.features, None)
        inside.append((np.abs(mean - world.truth) < 1.96 * error).mean())
    assert 0.9 < np.mean(inside) < 0.99


def test_a_linear_fit_is_less_certain_about_a_far_prompt() -> None:
    world = World()
    _, error = Linear.fit(world.features, world.mean, world.variance).estimate(
        np.stack([world.features.mean(0), 9 + world.features[0]]), None
    )
    assert (error[1] > 3 * error[0]).all()
