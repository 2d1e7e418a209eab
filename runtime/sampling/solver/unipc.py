"""UniPC."""

from __future__ import annotations

import numpy as np

from costroute_rt.sampling.solver.level import denoise, flow, preserve_sigma
from costroute_rt.sampling.step_table import Descent, FloatArray, StepTable


def unipc(
    descent: Descent, prediction_type: str, *, solver_order: int = 2, solver_type: str = "bh2", lower_order_final: bool = True
) -> StepTable:
    """Predictor and corrector of order 2 that share each call (UniPC, Zhao et al. 2023, Algorithms 5 to 8); sigmas, or flow levels.

    Once a row's D is known, the corrector computes a better x for that row, and the predictor continues from it. The corrected x is
    y + u D: the carried latent y holds all its terms that do not depend on D, so that

        x_next = predictor(y + u D, D, D_prev)        y_next = terms of the next corrector in (y + u D, D, D_prev)

    solver_type: bh1 or bh2, the paper's B(h) = h and e^h - 1. Row 0 of a new run has nothing to correct and uses x in place of y.
    """
    to_pair = flow if prediction_type == "flow_prediction" else preserve_sigma
    levels = np.array([*descent.before, *descent.entry, descent.exit[-1]])
    alpha, sigma = to_pair(levels)
    with np.errstate(divide="ignore"):
        lam = np.log(alpha) - np.log(sigma)
    p, q = denoise(prediction_type, *to_pair(descent.entry))
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
