"""The solvers: each a pure function from the steps of a run to its step table.

Noise levels come in three kinds, named by how they relate a latent x to the clean latent x0 and unit noise n:

    unscaled     x = x0 + sigma n                                 euler, euler_ancestral, heun
    preserving   x = sqrt(1 - level^2) x0 + level n               ddim, lcm: level 0 to 1
                 x = (x0 + sigma n) / sqrt(1 + sigma^2)           dpmpp_2m, unipc: the same latents, measured in sigma
    flow         x = (1 - sigma) x0 + sigma n                     flow_match_euler, flow_dpmpp_2m, flow_unipc: sigma 0 to 1
"""

from __future__ import annotations

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.sampling.step_table import Descent, FloatArray, StepTable

FEW_ROWS = 15
"""dpmpp_2m's lower_order_final takes effect with fewer rows than this; diffusers' value."""


def ddim(descent: Descent, prediction_type: str, eta: float = 0.0) -> StepTable:
    """Denoising diffusion implicit steps (Song et al. 2021, equations 12 and 16); preserving noise levels.

    eta: 0 to 1, share of each step's noise that is drawn anew. Raises ConfigError for epsilon from a level of 1, which has no signal.
    """
    alpha, sigma = _preserve(descent.entry)
    alpha_next, sigma_next = _preserve(descent.exit)
    p, q = _denoise(prediction_type, alpha, sigma)
    # Equation 16, with 1 - alpha^2 / alpha_next^2 limited to 0 or more.
    fresh = eta * sigma_next / sigma * np.sqrt(np.maximum(1 - (alpha / alpha_next) ** 2, 0))
    kept = np.sqrt(sigma_next**2 - fresh**2) / sigma
    return StepTable(descent=descent, p=p, q=q, a=kept, b=alpha_next - kept * alpha, s=fresh)


def lcm(descent: Descent, prediction_type: str, timestep_scaling: float = 10.0) -> StepTable:
    """Consistency steps: to the clean latent and back up with new noise (Luo et al. 2023, Algorithm 3); preserving levels.

    timestep_scaling: sharpness of the boundary condition that makes the model the identity at timestep 0.
    """
    alpha, sigma = _preserve(descent.entry)
    alpha_next, sigma_next = _preserve(descent.exit)
    p, q = _denoise(prediction_type, alpha, sigma)
    sigma_data, scaled = 0.5, descent.timestep * timestep_scaling
    skip, out = sigma_data**2 / (scaled**2 + sigma_data**2), scaled / np.hypot(scaled, sigma_data)
    return StepTable(descent=descent, p=p, q=q, a=alpha_next * skip, b=alpha_next * out, s=sigma_next)


def euler(descent: Descent, prediction_type: str) -> StepTable:
    """First-order steps along the probability-flow line (Karras et al. 2022, Algorithm 1 without churn); unscaled levels."""
    ratio = descent.exit / descent.entry
    input_scale, p, q = _read_unscaled(descent, prediction_type)
    return StepTable(descent=descent, input_scale=input_scale, p=p, q=q, a=ratio, b=1 - ratio)


def euler_ancestral(descent: Descent, prediction_type: str) -> StepTable:
    """Euler steps to below the next level, then new noise up to it (k-diffusion's get_ancestral_step); unscaled levels."""
    now, after = descent.entry, descent.exit
    down = after**2 / now
    up = after * np.sqrt(np.maximum(1 - (after / now) ** 2, 0))
    input_scale, p, q = _read_unscaled(descent, prediction_type)
    return StepTable(descent=descent, input_scale=input_scale, p=p, q=q, a=down / now, b=1 - down / now, s=up)


def heun(descent: Descent, prediction_type: str) -> StepTable:
    """Second-order steps of two rows, predictor and corrector (Karras et al. 2022, Algorithm 1); unscaled levels.

    The predictor is an Euler row to x' at the next level, where the corrector calls the denoiser again. Both slopes can be computed at
    x': the predictor moved straight towards D_prev, so its slope is still (x' - D_prev) / after, and the corrector,
    x' + (after - now) / 2 * (slope at x' - predictor's slope), does not need the x before. The last step has no corrector, because it
    ends at 0, where the slope is undefined. Returns 2 * steps - 1 rows.
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
    input_scale, p, q = _read_unscaled(doubled, prediction_type)
    return StepTable(descent=doubled, input_scale=input_scale, p=p, q=q, a=a, b=b, c=c)


def flow_match_euler(descent: Descent, is_stochastic: bool = False) -> StepTable:
    """Euler steps along a rectified flow (Esser et al. 2024); flow noise levels.

    is_stochastic: go to the clean latent and back up with new noise, which some distilled models require.
    """
    ratio = descent.exit / descent.entry
    if is_stochastic:
        return StepTable(descent=descent, p=1.0, q=-descent.entry, a=0.0, b=1 - descent.exit, s=descent.exit)
    return StepTable(descent=descent, p=1.0, q=-descent.entry, a=ratio, b=1 - ratio)


def dpmpp_2m(
    descent: Descent,
    prediction_type: str,
    *,
    is_stochastic: bool = False,
    solver_order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> StepTable:
    """Multistep DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095, Algorithm 2 and its SDE form); sigmas, or flow levels.

    h is a step's length in log(alpha / sigma). A second-order row adds a share of (D - D_prev) h / h_before to D.
    Row 0 is first order in a new run; in a re-planned run it uses the D of the last row before re-planning.
    """
    to_pair = _flow if prediction_type == "flow_prediction" else _preserve_sigma
    alpha, sigma = to_pair(descent.entry)
    alpha_next, sigma_next = to_pair(descent.exit)
    p, q = _denoise(prediction_type, alpha, sigma)

    shrink = (sigma_next * alpha) / (sigma * alpha_next)  # exp(-h); 0 if the step ends without noise
    order = _choose_order(descent, solver_order, lower_order_final, euler_at_final)
    decay = shrink**2 if is_stochastic else shrink
    b, c = alpha_next * (1 - decay), np.zeros_like(alpha)
    second = np.flatnonzero((order == 2) & (shrink != 1))
    before = np.append(descent.before[-1] if descent.before else np.nan, descent.entry[:-1])
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
        return StepTable(
            descent=descent, p=p, q=q, a=sigma_next / sigma * shrink, b=b, c=c, s=sigma_next * np.sqrt(np.maximum(1 - decay, 0))
        )
    return StepTable(descent=descent, p=p, q=q, a=sigma_next / sigma, b=b, c=c)


def unipc(
    descent: Descent, prediction_type: str, *, solver_order: int = 2, solver_type: str = "bh2", lower_order_final: bool = True
) -> StepTable:
    """Predictor and corrector of order 2 that share each call (UniPC, Zhao et al. 2023, Algorithms 5 to 8); sigmas, or flow levels.

    Once a row's D is known, the corrector computes a better x for that row, and the predictor continues from it. The corrected x is
    y + u D: the carried latent y holds all its terms that do not depend on D, so that

        x_next = predictor(y + u D, D, D_prev)        y_next = terms of the next corrector in (y + u D, D, D_prev)

    solver_type: bh1 or bh2, the paper's B(h) = h and e^h - 1. Row 0 of a new run has nothing to correct and uses x in place of y.
    """
    to_pair = _flow if prediction_type == "flow_prediction" else _preserve_sigma
    levels = np.array([*descent.before, *descent.entry, descent.exit[-1]])
    alpha, sigma = to_pair(levels)
    with np.errstate(divide="ignore"):
        lam = np.log(alpha) - np.log(sigma)
    p, q = _denoise(prediction_type, *to_pair(descent.entry))
    rows, first = len(descent), len(descent.before)
    table = {name: np.zeros(rows) for name in "abcefghk"}
    for i in range(rows):
        now = first + i  # index in `levels` of the level at which this row starts
        is_fresh = now == 0
        order = min(solver_order, now + 1)
        if levels[now + 1] == 0 or (lower_order_final and i == rows - 1):
            order = 1  # as diffusers' lower_order_final; order 2 is undefined for a step that ends without noise
        u = 0.0 if is_fresh else _unipc_correct(alpha, sigma, lam, now - 1, min(solver_order, now), solver_type)[3]
        kept, on_d, on_d_prev = _unipc_predict(alpha, sigma, lam, now, order, solver_type)
        source = "a" if is_fresh else "e"
        table[source][i], table["b"][i], table["c"][i] = kept, kept * u + on_d, on_d_prev
        if i < rows - 1:
            kept, on_d, on_d_prev, _ = _unipc_correct(alpha, sigma, lam, now, order, solver_type)
            source = "f" if is_fresh else "k"
            table[source][i], table["g"][i], table["h"][i] = kept, kept * u + on_d, on_d_prev
    return StepTable(descent=descent, p=p, q=q, **table)


def _unipc_predict(
    alpha: FloatArray, sigma: FloatArray, lam: FloatArray, now: int, order: int, solver_type: str
) -> tuple[float, float, float]:
    """Weights of the corrected x, of D and of D_prev in the x at the next level."""
    phi, b = _unipc_steps(lam[now + 1] - lam[now], solver_type)
    lift = 0.0
    if order == 2:
        lift = 0.5 * alpha[now + 1] * b * (lam[now + 1] - lam[now]) / (lam[now - 1] - lam[now])
    return sigma[now + 1] / sigma[now], -alpha[now + 1] * phi + lift, -lift


def _unipc_correct(
    alpha: FloatArray, sigma: FloatArray, lam: FloatArray, now: int, order: int, solver_type: str
) -> tuple[float, float, float, float]:
    """Weights in the corrected x at the next level: of the corrected x at this level, of D, of D_prev, and of the next D."""
    h = lam[now + 1] - lam[now]
    phi, b = _unipc_steps(h, solver_type)
    share, earlier, ratio = 0.5, 0.0, 1.0
    if order == 2:
        ratio = (lam[now - 1] - lam[now]) / h
        phi_2 = phi / -h - 1
        phi_3 = phi_2 / -h - 0.5
        earlier, share = np.linalg.solve(np.array([[1.0, 1.0], [ratio, 1.0]]), np.array([phi_2 / b, 2 * phi_3 / b])).tolist()
    on_d_prev, on_next = -alpha[now + 1] * b * earlier / ratio, -alpha[now + 1] * b * share
    return sigma[now + 1] / sigma[now], -alpha[now + 1] * phi - on_d_prev - on_next, on_d_prev, on_next


def _unipc_steps(h: float, solver_type: str) -> tuple[float, float]:
    """(e^-h - 1, B) for a step of length h in log(alpha / sigma)."""
    phi = float(np.expm1(-h))
    return phi, phi if solver_type == "bh2" else -h


def _choose_order(descent: Descent, solver_order: int, lower_order_final: bool, euler_at_final: bool) -> FloatArray:
    """Order of each dpmpp_2m row: 1 for a row without a D before it, 1 for the last row if that is more stable, else `solver_order`."""
    order = np.full(len(descent.timestep), float(solver_order))
    if not descent.before:
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


def _read_unscaled(descent: Descent, prediction_type: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(input_scale, p, q) for unscaled levels: the denoiser sees x scaled to unit variance, and its output refers to the scaled x."""
    alpha, sigma = _preserve_sigma(descent.entry)
    p, q = _denoise(prediction_type, alpha, sigma)
    return alpha, alpha * p, q
