"""Multistep DPM-Solver++."""

from __future__ import annotations

import numpy as np

from costroute_rt.sampling.solver.level import denoise, flow, preserve_sigma
from costroute_rt.sampling.step_table import Descent, FloatArray, StepTable

FEW_ROWS = 15
"""dpmpp_2m's lower_order_final takes effect with fewer rows than this; diffusers' value."""


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
    to_pair = flow if prediction_type == "flow_prediction" else preserve_sigma
    alpha, sigma = to_pair(descent.entry)
    alpha_next, sigma_next = to_pair(descent.exit)
    p, q = denoise(prediction_type, alpha, sigma)

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


def _choose_order(descent: Descent, solver_order: int, lower_order_final: bool, euler_at_final: bool) -> FloatArray:
    """Order of each dpmpp_2m row: 1 for a row without a D before it, 1 for the last row if that is more stable, else `solver_order`."""
    order = np.full(len(descent.timestep), float(solver_order))
    if not descent.before:
        order[0] = 1
    if descent.exit[-1] == 0 or euler_at_final or (lower_order_final and len(order) < FEW_ROWS):
        order[-1] = 1
    return order
