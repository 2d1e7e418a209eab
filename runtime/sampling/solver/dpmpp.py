"""Multistep DPM-Solver++."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from costroute_rt.sampling.solver.level import denoise, flow, preserve_sigma
from costroute_rt.sampling.step_table import Descent, FloatArray, StepTable

FEW_ROWS = 15
"""lower_order_final takes effect with fewer rows than this; diffusers' value."""


def dpmpp_multistep(
    descent: Descent,
    prediction_type: str,
    *,
    is_stochastic: bool = False,
    solver_order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> StepTable:
    """Multistep DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095, Algorithm 2 and its SDE form) of order 1, 2 or 3; sigmas, or flow levels.

    h is a step's length in log(alpha / sigma). A second-order row adds a share of (D - D_prev) h / h_before to D.
    A third-order row uses the D two rows before it too, which the carried latent holds. Its SDE form is that of k-diffusion's
    sample_dpmpp_3m_sde; in diffusers 0.39 a term of it has the wrong sign.
    Row 0 is first order in a new run; in a re-planned run it uses the D of the rows before re-planning.
    """
    to_pair = flow if prediction_type == "flow_prediction" else preserve_sigma
    alpha, sigma = to_pair(descent.entry)
    alpha_next, sigma_next = to_pair(descent.exit)
    p, q = denoise(prediction_type, alpha, sigma)

    shrink = (sigma_next * alpha) / (sigma * alpha_next)  # exp(-h); 0 if the step ends without noise
    decay = shrink**2 if is_stochastic else shrink
    order = np.where(shrink == 1, 1, _choose_order(descent, solver_order, lower_order_final, euler_at_final))
    table = {name: np.zeros(len(descent)) for name in "abcseh"}
    table["a"] = sigma_next / sigma * (shrink if is_stochastic else 1.0)
    table["b"] = alpha_next * (1 - decay)
    if is_stochastic:
        table["s"] = sigma_next * np.sqrt(np.maximum(1 - decay, 0))
    h = -np.log(shrink)
    length = -np.log(decay)  # h, or 2 h
    _add_second(table, np.flatnonzero(order == 2), alpha_next, decay, length, h, _lengths_before(descent, to_pair, 1), solver_type)
    if solver_order == 3:
        before = _lengths_before(descent, to_pair, 1), _lengths_before(descent, to_pair, 2)
        _add_third(table, np.flatnonzero(order == 3), alpha_next, decay, length, h, *before)
        table["h"][:-1] = 1.0  # y is the D two rows back
        if not descent.before:
            table["h"][0] = 0.0
    return StepTable(descent=descent, p=p, q=q, **table)


def _lengths_before(descent: Descent, to_pair: Callable[[FloatArray], tuple[FloatArray, FloatArray]], back: int) -> FloatArray:
    """Length in log(alpha / sigma) of the step `back` steps before each one: float64[steps]; nan where there is none."""
    entries = np.concatenate([np.full(2 - len(descent.before), np.nan), descent.before, descent.entry])
    alpha, sigma = to_pair(entries)
    lam = np.log(alpha) - np.log(sigma)
    count = len(descent)
    return np.asarray((lam[1:] - lam[:-1])[2 - back :][:count])


def _add_second(
    table: dict[str, FloatArray],
    rows: npt.NDArray[np.int64],
    alpha_next: FloatArray,
    decay: FloatArray,
    length: FloatArray,
    h: FloatArray,
    h_before: FloatArray,
    solver_type: str,
) -> None:
    """Make these rows second order."""
    share = 0.5 * (1 - decay[rows])
    if solver_type == "heun":
        share = 1 - (1 - decay[rows]) / length[rows]
    lift = alpha_next[rows] * share * h[rows] / h_before[rows]
    table["b"][rows] += lift
    table["c"][rows] -= lift


def _add_third(
    table: dict[str, FloatArray],
    rows: npt.NDArray[np.int64],
    alpha_next: FloatArray,
    decay: FloatArray,
    length: FloatArray,
    h: FloatArray,
    h_before: FloatArray,
    h_earlier: FloatArray,
) -> None:
    """Make these rows third order: slope and curvature of D from the last three of them, as in k-diffusion's sample_dpmpp_3m_sde."""
    alpha, decay, length = alpha_next[rows], decay[rows], length[rows]
    phi_2 = alpha * (1 - (1 - decay) / length)
    phi_3 = -alpha * ((decay - 1 + length) / length**2 - 0.5)
    near, far = h_before[rows] / h[rows], h_earlier[rows] / h[rows]
    bend = (phi_2 * near + phi_3) / (near + far)
    on_near, on_far = (phi_2 + bend) / near, -bend / far  # of (D - D_prev) and of (D_prev - the D before it)
    table["b"][rows] += on_near
    table["c"][rows] += on_far - on_near
    table["e"][rows] -= on_far


def _choose_order(descent: Descent, solver_order: int, lower_order_final: bool, euler_at_final: bool) -> npt.NDArray[np.int64]:
    """Order of each row: limited by the D that exist before it, and lower in the last two rows where that is more stable."""
    rows = len(descent)
    order = np.minimum(solver_order, np.arange(rows) + len(descent.before) + 1)
    is_short = lower_order_final and rows < FEW_ROWS
    if is_short and rows > 1:
        order[-2] = min(order[-2], 2)
    if descent.exit[-1] == 0 or euler_at_final or is_short:
        order[-1] = 1
    return order
