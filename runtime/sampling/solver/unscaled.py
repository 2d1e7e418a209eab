"""Solvers for unscaled noise levels."""

from __future__ import annotations

import numpy as np

from costroute_rt.sampling.solver.level import read_unscaled
from costroute_rt.sampling.step_table import Descent, StepTable


def euler(descent: Descent, prediction_type: str) -> StepTable:
    """First-order steps along the probability-flow line (Karras et al. 2022, Algorithm 1 without churn); unscaled levels."""
    ratio = descent.exit / descent.entry
    input_scale, p, q = read_unscaled(descent, prediction_type)
    return StepTable(descent=descent, input_scale=input_scale, p=p, q=q, a=ratio, b=1 - ratio)


def euler_ancestral(descent: Descent, prediction_type: str) -> StepTable:
    """Euler steps to below the next level, then new noise up to it (k-diffusion's get_ancestral_step); unscaled levels."""
    now, after = descent.entry, descent.exit
    down = after**2 / now
    up = after * np.sqrt(np.maximum(1 - (after / now) ** 2, 0))
    input_scale, p, q = read_unscaled(descent, prediction_type)
    return StepTable(descent=descent, input_scale=input_scale, p=p, q=q, a=down / now, b=1 - down / now, s=up)


def heun(descent: Descent, prediction_type: str) -> StepTable:
    """Second-order steps of two rows, predictor and corrector (Karras et al. 2022, Algorithm 1); unscaled levels.

    The predictor is an Euler row to x' at the next level, where the corrector calls the denoiser again. Both slopes can be computed at
    x': the predictor moved straight towards D_prev, so its slope is still (x' - D_prev) / after, and the corrector,
    x' + (after - now) / 2 * (slope at x' - predictor's slope), does not need the x before. The last step has no corrector, because it
    ends at 0, where the slope is undefined. Returns 2 * steps - 1 rows. With flow_prediction, for flow levels.
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
    input_scale, p, q = read_unscaled(doubled, prediction_type)
    return StepTable(descent=doubled, input_scale=input_scale, p=p, q=q, a=a, b=b, c=c)
