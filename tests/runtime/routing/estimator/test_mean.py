"""The mean of other estimators."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.estimator.mean import Mean, find_knn
from tests.runtime.routing.estimator.world import World, estimate, make_transformer


def test_the_mean_is_that_of_its_members() -> None:
    world = World()
    members = [kind.fit(world.features, world.mean, world.variance) for kind in (Knn, Linear)]
    both = [member.estimate(world.features, None) for member in members]
    for index, found in enumerate(Mean(tuple(members)).estimate(world.features, None)):
        np.testing.assert_allclose(found, (both[0][index] + both[1][index]) / 2)
    assert find_knn(Mean((Mean(tuple(members)),))) is members[0]
    assert find_knn(members[1]) is None


def test_a_mean_reads_states_if_a_member_does() -> None:
    class Reader(Average):
        needs_states = True  # type: ignore[misc]

    world = World()
    average = Average.fit(world.mean, world.variance)
    assert not Mean((average,)).needs_states
    assert Mean((average, Reader(average.mean, average.standard_error, average.spread))).needs_states


def test_a_mean_needs_the_states_and_networks_of_its_members() -> None:
    estimator, _, world = make_transformer()
    knn = Knn.fit(world.features, world.mean, world.variance)
    both = Mean((knn, estimator))
    assert (both.needs_states, both.networks, both.candidates) == (True, estimator.networks, 3)
    expected = (estimate(knn, world.features[:2])[0] + estimate(estimator, world.features[:2])[0]) / 2
    np.testing.assert_allclose(estimate(both, world.features[:2])[0], expected)
    with pytest.raises(ValueError, match="different numbers"):
        Mean((knn, Average.fit(world.mean[:, :2], world.variance[:, :2])))
