"""Weights of labels."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.routing.estimator.label_weight import label_weights


def test_weights_are_one_on_average_and_fall_with_the_variance() -> None:
    mean, variance = np.array([[1.0], [2.0], [3.0], [np.nan]]), np.array([[0.1], [0.1], [5.0], [np.nan]])
    weights, labels = label_weights(mean, variance)
    assert weights[:3].mean() == pytest.approx(1)
    assert weights[0] == weights[1] > 3 * weights[2]
    assert weights[3] == labels[3] == 0
