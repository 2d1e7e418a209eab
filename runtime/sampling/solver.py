"""The solvers: each a pure function from the steps of a run to its step table.

Noise levels come in three kinds, named by how they relate a latent x to the clean latent x0 and unit noise n:

    unscaled     x = x0 + sigma n                                 euler, euler_ancestral, heun
    preserving   x = sqrt(1 - level^2) x0 + level n               ddim, lcm: level 0 to 1
                 x = (x0 + sigma n) / sqrt(1 + sigma^2)           dpmpp_2m: the same line, counted in sigma
    flow         x = (1 - sigma) x0 + sigma n                     flow_match_euler, flow_dpmpp_2m: sigma 0 to 1
"""

from __future__ import annotations

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.sampling.noise_schedule import Descent
from costroute_rt.sampling.step_table import FloatArray, StepTable

FEW_ROWS = 15
"""Below this many rows dpmpp_2m's lower_order_final takes effect; diffusers' number."""


def ddim(descent: Descent, prediction_type: str, eta: float = 0.0) -> StepTable:
    """Denoising diffusion implicit steps (Song et al. 2021, equations 12 and 16); preserving noise levels.

    eta: 0 to 1, how much of each step's noise is drawn anew. Raises ConfigError for epsilon from a level of 1: no signal there.
    """
    alpha, sigma = _preserve(descent.entry)
    alpha_next, sigma_next = _preserve(descent.exit)
    p, q = _denoise(prediction_type, alpha, sigma)
    # Equation 16 with 1 - alpha^2 / alpha_next^2 written so that it cannot fall below 0.
    fresh = eta * sigma_next / sigma * np.sqrt(np.maximum(1 - (alpha / alpha_next) ** 2, 0))
    kept = np.sqrt(sigma_next**2 - fresh**2) / sigma
    return _table(descent, p=p, q=q, a=kept, b=alpha_next - kept * alpha, s=fresh)


def lcm(descent: Descent, prediction_type: str, timestep_scaling: float = 10.0) -> StepTable:
    """Consistency steps: to the clean latent and back up with new noise (Luo et al. 2023, Algorithm 3); preserving levels.

    timestep_scaling: sharpness of the boundary condition that makes the model the identity at timestep 0.
    """
    alpha, sigma = _preserve(descent.entry)
    alpha_next, sigma_next = _preserve(descent.exit)
    p, q = _denoise(prediction_type, alpha, sigma)
    sigma_data, scaled = 0.5, descent.timestep * timestep_scaling
    skip, out = sigma_data**2 / (scaled**2 + sigma_data**2), scaled / np.hypot(scaled, sigma_data)
    return _table(descent, p=p, q=q, a=alpha_next * skip, b=alpha_next * out, s=sigma_next)


def euler(descent: Descent, prediction_type: str) -> StepTable:
    """First-order steps along the probability-flow line (Karras et al. 2022, Algorithm 1 without churn); unscaled levels."""
    ratio = descent.exit / descent.entry
    return _unscaled_table(descent, prediction_type, a=ratio, b=1 - ratio)


def euler_ancestral(descent: Descent, prediction_type: str) -> StepTable:
    """Euler steps that overshoot, then add new noise up to the next level (k-diffusion's get_ancestral_step); unscaled levels."""
    now, after = descent.entry, descent.exit
    down = after**2 / now
    up = after * np.sqrt(np.maximum(1 - (after / now) ** 2, 0))
    return _unscaled_table(descent, prediction_type, a=down / now, b=1 - down / now, s=up)


def heun(descent: Descent, prediction_type: str) -> StepTable:
    """Second-order steps of two rows, predictor and corrector (Karras et al. 2022, Algorithm 1); unscaled levels.

    The predictor is an Euler row to x' at the next level, where the corrector evaluates again. Both slopes can be read at x':
    the predictor moved straight towards D_prev, so its slope there is still (x' - D_prev) / after, and the corrector,
    x' + (after - now) / 2 * (slope at x' - predictor's slope), needs no memory of the x before. The last step has no
    corrector, as it ends at 0, where no slope can be read. Returns 2 * steps - 1 rows.
    """
    now, after = descent.entry, descent.exit
    rows = 2 * len(now) - 1
    predict, correct = np.arange(0, rows, 2), np.arange(1, rows, 2)
    a, b, c = np.ones(rows), np.empty(rows), np.zeros(rows)
    a[predict] = after / now
    b[predict] = 1 - after / now
    b[correct] = (now - after)[:-1] / (2 * after[:-1])
    c[correct] = -b[correct]
    levels, timesteps = np.repeat(now, 2)[1:], np.repeat(descent.timestep, 2)[1:]
    doubled = Descent.through(timesteps, np.append(levels, after[-1]), descent.initial_noise_scale)
    return _unscaled_table(doubled, prediction_type, a=a, b=b, c=c)


def flow_match_euler(descent: Descent, is_stochastic: bool = False) -> StepTable:
    """Euler steps along a rectified flow (Esser et al. 2024); flow noise levels.

    is_stochastic: go to the clean latent and back up with new noise, as some distilled models want.
    """
    ratio = descent.exit / descent.entry
    if is_stochastic:
        return _table(descent, p=1.0, q=-descent.entry, a=0.0, b=1 - descent.exit, s=descent.exit)
    return _table(descent, p=1.0, q=-descent.entry, a=ratio, b=1 - ratio)


def dpmpp_2m(
    descent: Descent,
    prediction_type: str,
    *,
    is_stochastic: bool = False,
    solver_order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool = True,
    euler_at_final: bool = False,
    previous_level: float | None = None,
) -> StepTable:
    """Multistep DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095, Algorithm 2 and its SDE form); sigmas, or flow levels.

    h is a step's length in log(alpha / sigma). A second-order row lifts D by a share of (D - D_prev) h / h_before.
    previous_level: noise level of the D_prev that stands before row 0; None for a fresh run, whose row 0 is first order.
    """
    to_pair = _flow if prediction_type == "flow_prediction" else _preserve_sigma
    alpha, sigma = to_pair(descent.entry)
    alpha_next, sigma_next = to_pair(descent.exit)
    p, q = _denoise(prediction_type, alpha, sigma)

    shrink = (sigma_next * alpha) / (sigma * alpha_next)  # exp(-h); 0 where the step ends at no noise
    order = _choose_order(descent, solver_order, lower_order_final, euler_at_final, previous_level)
    decay = shrink**2 if is_stochastic else shrink
    b, c = alpha_next * (1 - decay), np.zeros_like(alpha)
    second = np.flatnonzero((order == 2) & (shrink != 1))
    before = np.append(np.nan if previous_level is None else previous_level, descent.entry[:-1])
    alpha_before, sigma_before = to_pair(before)
    h = -np.log(shrink[second])
    h_before = np.log((sigma_before * alpha / (alpha_before * sigma))[second])
    share = 0.5 * (1 - decay[second])
    if solver_type == "heun":
        share = 1 - (1 - decay[second]) / -np.log(decay[second])
    lift = alpha_next[second] * share * h / h_before
    b[second] += lift
    c[second] = -lift
    if is_stochastic:
        return _table(descent, p=p, q=q, a=sigma_next / sigma * shrink, b=b, c=c, s=sigma_next * np.sqrt(1 - decay))
    return _table(descent, p=p, q=q, a=sigma_next / sigma, b=b, c=c)


def _choose_order(
    descent: Descent, solver_order: int, lower_order_final: bool, euler_at_final: bool, previous_level: float | None
) -> FloatArray:
    """Order of each dpmpp_2m row, 1 or 2: first where no D stands before it, and at the end where that is steadier."""
    order = np.full(len(descent.timestep), float(solver_order))
    if previous_level is None:
        order[0] = 1
    if descent.exit[-1] == 0 or euler_at_final or (lower_order_final and len(order) < FEW_ROWS):
        order[-1] = 1
    return order


def _preserve(level: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.sqrt(1 - level**2), level


def _preserve_sigma(sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    alpha = 1 / np.hypot(sigma, 1)
    return alpha, sigma * alpha


def _flow(sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    return 1 - sigma, sigma


def _denoise(prediction_type: str, alpha: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
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


def _table(
    descent: Descent,
    *,
    p: FloatArray | float,
    q: FloatArray | float,
    a: FloatArray | float,
    b: FloatArray | float,
    c: FloatArray | float = 0.0,
    s: FloatArray | float = 0.0,
    input_scale: FloatArray | float = 1.0,
) -> StepTable:
    levels = np.append(descent.entry, descent.exit[-1])
    return StepTable.from_columns(
        timestep=descent.timestep,
        noise_levels=levels,
        initial_noise_scale=descent.initial_noise_scale,
        input_scale=input_scale,
        p=p,
        q=q,
        a=a,
        b=b,
        c=c,
        s=s,
    )


def _unscaled_table(
    descent: Descent, prediction_type: str, *, a: FloatArray, b: FloatArray, c: FloatArray | float = 0.0, s: FloatArray | float = 0.0
) -> StepTable:
    """A table for unscaled levels: the denoiser sees x at unit variance, and its output is read there."""
    alpha, sigma = _preserve_sigma(descent.entry)
    p, q = _denoise(prediction_type, alpha, sigma)
    return _table(descent, p=alpha * p, q=q, a=a, b=b, c=c, s=s, input_scale=alpha)
