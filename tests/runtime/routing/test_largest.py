"""The largest of many numbers."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.routing.largest import find_largest


@pytest.mark.parametrize("count", [1, 7, 300, 511, 512, 5000])
@pytest.mark.parametrize("k", [1, 5, 30, 100])
def test_they_are_those_of_a_full_sort(count: int, k: int) -> None:
    values = np.random.default_rng(count + k).normal(size=count).astype(np.float32)
    np.testing.assert_array_equal(find_largest(values, k), np.argsort(-values, kind="stable")[:k])


@pytest.mark.parametrize("k", [1, 5, 30])
def test_of_equal_numbers_the_first_are_found(k: int) -> None:
    values = np.random.default_rng(k).integers(0, 9, 4000).astype(np.float32)
    np.testing.assert_array_equal(find_largest(values, k), np.argsort(-values, kind="stable")[:k])
    np.testing.assert_array_equal(find_largest(np.zeros(1000, dtype=np.float32), k), np.arange(k))


@pytest.mark.parametrize("order", [1, -1])
def test_it_makes_no_difference_where_they_are(order: int) -> None:
    values = np.arange(2048, dtype=np.float32)[::order]
    np.testing.assert_array_equal(find_largest(values, 30), np.argsort(-values)[:30])
    values = np.zeros(2560, dtype=np.float32)
    values[::256] = np.arange(1, 11)  # all in one group
    np.testing.assert_array_equal(find_largest(values, 5), 256 * np.arange(9, 4, -1))


def test_nan_is_the_smallest() -> None:
    values = np.arange(600, dtype=np.float32)
    values[[3, 599]] = np.nan
    assert find_largest(values, 2).tolist() == [598, 597]
    assert len(find_largest(np.full(600, np.nan, dtype=np.float32), 4)) == 4
