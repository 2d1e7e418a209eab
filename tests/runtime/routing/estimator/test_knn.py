"""The estimator over similar prompts."""

from __future__ import annotations

import numpy as np

from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.knn import Knn
from tests.runtime.routing.estimator.world import World


def test_knn_without_a_similar_prompt_gives_the_average() -> None:
    world = World()
    mean, _ = Knn.fit(world.features, world.mean, world.variance).estimate(np.zeros((1, 8), dtype=np.float32), None)
    np.testing.assert_allclose(mean[0], Average.fit(world.mean, world.variance).mean, rtol=1e-6)
