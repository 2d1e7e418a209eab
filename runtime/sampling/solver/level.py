"""Noise levels, and the clean latent that a denoiser's output stands for."""

from __future__ import annotations

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.sampling.step_table import Descent, FloatArray


def preserve(level: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.sqrt(1 - level**2), level


def preserve_sigma(sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    alpha = 1 / np.hypot(sigma, 1)
    return alpha, sigma * alpha


def flow(sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    return 1 - sigma, sigma


def denoise(prediction_type: str, alpha: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(p, q) with p * x + q * m = x0, for x = alpha x0 + sigma n and a model that predicts prediction_type."""
    if prediction_type == "epsilon":
        if not alpha.all():
            why = "with rescale_betas_zero_snr this run starts from pure noise"
            raise ConfigError("prediction_type", "epsilon", f"v_prediction or sample: {why}")
        return 1 / alpha, -sigma / alpha
    if prediction_type == "v_prediction":
        return alpha, -sigma
    if prediction_type == "flow_prediction":
        return np.ones_like(sigma), -sigma
    return np.zeros_like(sigma), np.ones_like(sigma)


def read_unscaled(descent: Descent, prediction_type: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(input_scale, p, q) for unscaled levels: the denoiser sees x scaled to unit variance, and its output refers to the scaled x.

    With flow_prediction, the levels are flow levels, x is not scaled, and slopes in sigma are the same.
    """
    if prediction_type == "flow_prediction":
        return np.ones_like(descent.entry), *denoise(prediction_type, *flow(descent.entry))
    alpha, sigma = preserve_sigma(descent.entry)
    p, q = denoise(prediction_type, alpha, sigma)
    return alpha, alpha * p, q
