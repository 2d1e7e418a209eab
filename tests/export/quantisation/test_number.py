"""int8 with one scale per channel."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.export.quantisation.number import LARGEST, quantise


@pytest.mark.parametrize("axis", [0, 1])
def test_the_error_is_at_most_half_a_scale(axis: int) -> None:
    values = np.random.default_rng(0).standard_normal((24, 40)).astype(np.float32)
    values *= np.geomspace(1e-20, 1e20, values.shape[axis], dtype=np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
    numbers, scale = quantise(values, axis)
    assert (numbers.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, (values.shape[axis],))
    wide = scale[:, None] if axis == 0 else scale[None, :]
    assert (np.abs(values - wide * numbers) <= 0.5001 * wide).all()
    assert (np.abs(numbers).max(1 - axis) == LARGEST).all()


def test_channels_of_zeros_and_of_the_smallest_numbers_stay_finite() -> None:
    values = np.array([[0.0, 0.0], [1e-45, -1e-45], [3e38, -3e38]], dtype=np.float32)
    numbers, scale = quantise(values, 0)
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    assert numbers.tolist() == [[0, 0], [0, 0], [127, -127]]
