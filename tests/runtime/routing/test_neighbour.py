"""Exact search for similar prompts."""

from __future__ import annotations

import numpy as np

from costroute_rt.routing.neighbour import Neighbours


def test_neighbours_come_nearest_first_and_match_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    features, queries = rng.normal(size=(500, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype(np.float32)
    places, similarities = Neighbours(features).search(queries, 7)
    cosine = (queries @ features.T) / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(features, axis=1)
    np.testing.assert_array_equal(places, np.argsort(-cosine, axis=1)[:, :7])
    np.testing.assert_allclose(similarities, -np.sort(-cosine, axis=1)[:, :7], rtol=1e-5)


def test_a_repeated_search_is_cached_and_another_is_not() -> None:
    rng = np.random.default_rng(0)
    neighbours = Neighbours(rng.normal(size=(50, 8)).astype(np.float32))
    one, other = rng.normal(size=(2, 1, 8)).astype(np.float32)
    first = neighbours.search(one, 9)
    assert np.shares_memory(neighbours.search(one, 5)[0], first[0])
    assert neighbours.search(one, 12)[0].shape == (1, 12)
    assert (neighbours.search(other, 9)[0] != first[0]).any()
    assert neighbours.search(one, 900)[0].shape == (1, 50)


def test_of_equally_similar_prompts_the_first_are_found() -> None:
    features = np.tile(np.eye(8, dtype=np.float32), (100, 1))
    places, similarities = Neighbours(features).search(features[3:5], 6)
    np.testing.assert_array_equal(places, [[3 + 8 * turn for turn in range(6)], [4 + 8 * turn for turn in range(6)]])
    assert (similarities == 1).all()


def test_features_that_are_all_zero_are_similar_to_nothing() -> None:
    features = np.random.default_rng(0).normal(size=(900, 8)).astype(np.float32)
    _, similarities = Neighbours(features).search(np.zeros((1, 8), dtype=np.float32), 5)
    assert similarities.tolist() == [[0] * 5]
