"""Singlestep DPM-Solver++: groups of rows of order 1, 2 and 3 that all start from the group's first x."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from costroute_rt.sampling.solver.level import denoise, flow, preserve_sigma
from costroute_rt.sampling.step_table import Descent, FloatArray, StepTable


class _Step(NamedTuple):
    """Weights of the group's first x, of the D of its rows so far (oldest first), and of noise in the x after a row."""

    x: float
    d: tuple[float, ...]
    noise: float


def dpmpp_singlestep(
    descent: Descent,
    prediction_type: str,
    *,
    is_stochastic: bool = False,
    solver_order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool = False,
) -> StepTable:
    """Singlestep DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095, Algorithm 1) of order 1, 2 or 3, one row per step; sigmas, or flow levels.

    The second row of a group of two follows from its x and D_prev: the first row moved along a line. With noise, or in groups of
    three, the first x is carried: y is x after the first row, and after the second the part of the third's result that is known.
    The third order of sde-dpmsolver++ with solver_type heun has the sign that makes it third order, unlike in diffusers 0.39.
    """
    to_pair = flow if prediction_type == "flow_prediction" else preserve_sigma
    levels = np.append(descent.entry, descent.exit[-1])
    p, q = denoise(prediction_type, *to_pair(descent.entry))
    orders = choose_orders(len(descent), solver_order, lower_order_final, ends_clean=levels[-1] == 0)
    pairs = to_pair(levels)
    steps = [_solve(pairs, i - order + 1, order, is_stochastic, solver_type) for i, order in enumerate(orders)]
    table = {name: np.zeros(len(descent)) for name in "abcsefghk"}
    for i, (order, step) in enumerate(zip(orders, steps, strict=True)):
        row = {"s": step.noise}
        carries = is_stochastic or solver_order == 3
        later = steps[i + 1] if carries and i + 1 < len(orders) and orders[i + 1] == order + 1 else None
        if order == 1:
            row |= {"a": step.x, "b": step.d[0]} | ({} if later is None else {"f": 1.0})
        elif order == 2 and carries:
            row |= {"e": step.x, "c": step.d[0], "b": step.d[1]}
            row |= {} if later is None else {"k": later.x, "h": later.d[0], "g": later.d[1]}
        elif order == 2:
            back = step.x / steps[i - 1].x
            row |= {"a": back, "c": step.d[0] - back * steps[i - 1].d[0], "b": step.d[1]}
        else:
            row |= {"e": 1.0, "b": step.d[2]}
        for name, value in row.items():
            table[name][i] = value
    return StepTable(descent=descent, p=p, q=q, **table)


def choose_orders(rows: int, solver_order: int, lower_order_final: bool, *, ends_clean: bool) -> list[int]:
    """Order of each row, as in diffusers: whole groups, and lower orders at the end if rows are left over or the run ends at 0."""
    group = list(range(1, solver_order + 1))
    if lower_order_final or rows % solver_order or ends_clean:
        whole = max(rows - 1, 0) // solver_order
        orders = group * whole + group[: rows - whole * solver_order]
        if solver_order > 1 and rows % solver_order == 0:
            orders[-1] = 1
    else:
        orders = group * (rows // solver_order)
    if ends_clean:
        orders[-1] = 1
    return orders


def _solve(pairs: tuple[FloatArray, FloatArray], start: int, order: int, is_stochastic: bool, solver_type: str) -> _Step:
    """One row of `order` in the group that starts at `start`; pairs: alpha and sigma of all levels."""
    alpha, sigma = pairs
    end = start + order
    shrink = sigma[end] * alpha[start] / (sigma[start] * alpha[end])  # exp(-h); 0 if the row ends without noise
    decay = shrink**2 if is_stochastic else shrink
    gain, noise = alpha[end] * (1 - decay), sigma[end] * np.sqrt(max(1 - decay, 0.0)) if is_stochastic else 0.0
    kept = sigma[end] / sigma[start] * (shrink if is_stochastic else 1.0)
    if order == 1:
        return _Step(kept, (gain,), noise)
    lam = np.log(alpha[start : end + 1]) - np.log(sigma[start : end + 1])
    length = -np.log(decay)  # h, or 2 h
    phi_2 = alpha[end] * (1 - (1 - decay) / length)
    r = (lam[1:-1] - lam[0]) / (lam[-1] - lam[0])
    if order == 2:
        slope = (0.5 * gain if solver_type == "midpoint" else phi_2) / r[0]
        return _Step(kept, (gain - slope, slope), noise)
    near, far = r
    if solver_type == "midpoint":
        slope = phi_2 / far
        return _Step(kept, (gain - slope, 0.0, slope), noise)
    phi_3 = -alpha[end] * ((decay - 1 + length) / length**2 - 0.5)
    on_near = (phi_2 * far - 2 * phi_3) / ((far - near) * near)  # of (D of the second row - D of the first)
    on_far = (-phi_2 * near + 2 * phi_3) / ((far - near) * far)  # of (D of the third - D of the first)
    return _Step(kept, (gain - on_near - on_far, on_near, on_far), noise)
