"""Quantiles of symmetric Beta distributions, in NumPy."""

from __future__ import annotations

import numpy as np

from costroute_rt.sampling.step_table import FloatArray

_TERMS = 64
"""Of a series in powers of at most 1 / 2: the rest is below float64's precision."""


def beta_quantile(share: FloatArray, shape: float) -> FloatArray:
    """The x in 0 to 1 below which Beta(shape, shape) has that share of its mass; share: float64[n], 0 to 1; shape: 0 to 1.

    Newton's method on y = x^shape, in which the mass is nearly linear. The lower half is computed, the upper follows by symmetry.
    """
    lower = np.minimum(share, 1 - share)
    n = np.arange(_TERMS)
    falling = np.cumprod(np.concatenate([[1.0], (n[1:] - shape) / n[1:]]))  # (1 - shape)_n / n!
    weights = falling / (shape + n)

    def mass(y: FloatArray) -> FloatArray:
        """The integral of t^(shape - 1) (1 - t)^(shape - 1) from 0 to y^(1 / shape), as a power series."""
        return np.asarray(y * ((y[:, None] ** (1 / shape)) ** n @ weights))

    wanted = lower * 2 * mass(np.array([0.5**shape]))
    y = np.minimum(wanted * shape, 0.5**shape)
    for _ in range(8):
        slope = (1 - y ** (1 / shape)) ** (shape - 1) / shape
        y = np.clip(y - (mass(y) - wanted) / slope, 0, 0.5**shape)
    x = y ** (1 / shape)
    quantile: FloatArray = np.where(share <= 0.5, x, 1 - x)
    return quantile
