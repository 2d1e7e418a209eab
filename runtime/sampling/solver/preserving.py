"""Solvers for preserving noise levels, from 0 to 1."""

from __future__ import annotations

import numpy as np

from costroute_rt.sampling.solver.level import denoise, preserve
from costroute_rt.sampling.step_table import Descent, StepTable


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
