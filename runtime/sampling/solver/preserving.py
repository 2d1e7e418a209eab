"""Solvers for preserving noise levels, from 0 to 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costroute_rt.sampling.solver.level import denoise, preserve
from costroute_rt.sampling.step_table import Descent, FloatArray, StepTable


def ddim(descent: Descent, prediction_type: str, eta: float = 0.0) -> StepTable:
    """Denoising diffusion implicit steps (Song et al. 2021, equations 12 and 16); preserving noise levels.

    eta: 0 to 1, share of each step's noise that is drawn anew. Raises ConfigError for epsilon from a level of 1, which has no signal.
    """
    alpha, sigma = preserve(descent.entry)
    alpha_next, sigma_next = preserve(descent.exit)
    p, q = denoise(prediction_type, alpha, sigma)
    # Equation 16, with 1 - alpha^2 / alpha_next^2 limited to 0 or more.
    fresh = eta * sigma_next / sigma * np.sqrt(np.maximum(1 - (alpha / alpha_next) ** 2, 0))
    kept = np.sqrt(sigma_next**2 - fresh**2) / sigma
    return StepTable(descent=descent, p=p, q=q, a=kept, b=alpha_next - kept * alpha, s=fresh)


def lcm(descent: Descent, prediction_type: str, timestep_scaling: float = 10.0) -> StepTable:
    """Consistency steps: to the clean latent and back up with new noise (Luo et al. 2023, Algorithm 3); preserving levels.

    timestep_scaling: sharpness of the boundary condition that makes the model the identity at timestep 0.
    """
    alpha, sigma = preserve(descent.entry)
    alpha_next, sigma_next = preserve(descent.exit)
    p, q = denoise(prediction_type, alpha, sigma)
    sigma_data, scaled = 0.5, descent.timestep * timestep_scaling
    skip, out = sigma_data**2 / (scaled**2 + sigma_data**2), scaled / np.hypot(scaled, sigma_data)
    return StepTable(descent=descent, p=p, q=q, a=alpha_next * skip, b=alpha_next * out, s=sigma_next)


def ddpm(descent: Descent, prediction_type: str, *, is_large: bool = False) -> StepTable:
    """Ancestral steps (Ho et al. 2020, equation 7), which are those of ddim with eta 1; preserving noise levels.

    is_large: add noise of the variance of the forward step (the paper's beta), not of the posterior's, at all timesteps above 0.
    """
    table = ddim(descent, prediction_type, eta=1.0)
    if not is_large:
        return table
    ratio = preserve(descent.entry)[0] / preserve(descent.exit)[0]
    return replace(table, s=np.where(descent.timestep > 0, np.sqrt(1 - ratio**2), 0.0))


def tcd(descent: Descent, prediction_type: str, between: FloatArray) -> StepTable:
    """Trajectory consistency steps: down to a level between, then up with new noise (Zheng et al. 2024, Algorithm 4).

    between: float64[steps], the levels below those at which the steps end; preserving noise levels.
    """
    alpha, sigma = preserve(descent.entry)
    alpha_low, sigma_low = preserve(between)
    up = preserve(descent.exit)[0] / alpha_low
    p, q = denoise(prediction_type, alpha, sigma)
    kept = sigma_low / sigma
    fresh = np.sqrt(np.maximum(1 - up**2, 0))
    return StepTable(descent=descent, p=p, q=q, a=up * kept, b=up * (alpha_low - kept * alpha), s=fresh)
