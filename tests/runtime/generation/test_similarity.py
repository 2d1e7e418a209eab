"""PSNR and SSIM, against what can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from costroute_rt.generation.similarity import MOST_PSNR_DB, psnr_db, ssim

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)


def test_psnr_is_that_of_the_definition() -> None:
    wanted = np.linspace(-2, 2, 1000)
    assert psnr_db(wanted, wanted + 0.04) == pytest.approx(20 * np.log10(4 / 0.04))
    assert psnr_db(wanted, wanted) == MOST_PSNR_DB
    assert psnr_db(np.zeros(4), np.ones(4)) == 0
    assert psnr_db(wanted, np.full(1000, np.nan)) == 0


def test_ssim_of_flat_images_is_the_term_of_their_means() -> None:
    dark, light = np.full((16, 16, 3), 60, np.uint8), np.full((16, 16, 3), 180, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(dark, light) == pytest.approx((2 * 60 * 180 + c1) / (60**2 + 180**2 + c1))


def test_ssim_agrees_with_the_formula_window_by_window() -> None:
    other = np.clip(IMAGE + RNG.normal(0, 30, IMAGE.shape), 0, 255).astype(np.uint8)
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    one, two = (image @ np.array([0.299, 0.587, 0.114]) for image in (IMAGE, other))
    values = []
    for y in range(24 - 10):
        for x in range(32 - 10):
            a, b = one[y : y + 11, x : x + 11], two[y : y + 11, x : x + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            both = (window * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append((2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    assert ssim(IMAGE, other) == pytest.approx(np.mean(values), abs=1e-9)
    assert ssim(IMAGE, IMAGE) == pytest.approx(1)
    assert ssim(IMAGE[:8, :8], IMAGE[:8, :8]) == pytest.approx(1)
