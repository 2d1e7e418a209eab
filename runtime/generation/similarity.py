"""How close an image is to the one it should be, as numbers: PSNR of latents, SSIM of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MOST_PSNR_DB = 200.0
"""Of equal arrays, instead of infinity."""
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


def psnr_db(wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mean squared error), where the peak is the range of `wanted`.

    Both of one shape; 0 for values that are not finite.
    """
    exact, other = wanted.astype(np.float64), found.astype(np.float64)
    with np.errstate(all="ignore"):
        error, peak = float(np.mean((exact - other) ** 2)), float(np.ptp(exact))
    if not np.isfinite([error, peak]).all() or not peak:
        return MOST_PSNR_DB if error == 0 else 0.0
    return MOST_PSNR_DB if error == 0 else min(MOST_PSNR_DB, float(10 * np.log10(peak**2 / error)))


def ssim(wanted: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8]) -> float:
    """Structural similarity of the luma of two images, 1 for equal ones (Wang, Bovik, Sheikh and Simoncelli 2004, equation 13).

    uint8[height, width, 3]. As in the paper: means, variances and covariance in a Gaussian window of 11 x 11 with a standard deviation of
    1.5 pixels, K1 = 0.01, K2 = 0.03, and the mean over all windows inside the image; for images below 11 pixels the window is smaller.
    """
    one, other = (image.astype(np.float64) @ _LUMA for image in (wanted, found))
    kernel = _gaussian(min(_WINDOW, *one.shape))
    mean_1, mean_2 = _blur(one, kernel), _blur(other, kernel)
    variance_1, variance_2 = _blur(one * one, kernel) - mean_1**2, _blur(other * other, kernel) - mean_2**2
    covariance = _blur(one * other, kernel) - mean_1 * mean_2
    likeness = (2 * mean_1 * mean_2 + _C1) * (2 * covariance + _C2)
    return float(np.mean(likeness / ((mean_1**2 + mean_2**2 + _C1) * (variance_1 + variance_2 + _C2))))


def _gaussian(length: int) -> npt.NDArray[np.float64]:
    """float64[length], with the sum 1."""
    offsets = np.arange(length) - (length - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    return np.asarray(weights / weights.sum())


def _blur(image: npt.NDArray[np.float64], kernel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The weighted mean of each window inside the image, along one axis after the other."""
    for axis in (0, 1):
        image = np.lib.stride_tricks.sliding_window_view(image, len(kernel), axis) @ kernel
    return image
