"""Solvers of unscaled levels that call the denoiser at each step's start and again at a level in the middle; the last step is Euler's.

The second row continues from the x at the start, x0. The first row moved along a line, x1 = r x0 + (1 - r) D, so the second row knows
x0 = (x1 - (1 - r) D_prev) / r. Where the first row adds noise, x0 is carried.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from costroute_rt.sampling.solver.level import read_unscaled
from costroute_rt.sampling.step_table import Descent, FloatArray, StepTable

ToTimestep = Callable[[FloatArray], FloatArray]
"""The timesteps at which the training schedule has these sigmas."""


def kdpm2(descent: Descent, prediction_type: str, to_timestep: ToTimestep, *, is_ancestral: bool = False) -> StepTable:
    """DPM-Solver-2: the slope in the middle is that of the whole step (Karras et al. 2022, Algorithm 2 with its sampler's S_churn 0).

    is_ancestral: steps end below the next level, then new noise is added (k-diffusion's sample_dpm_2_ancestral). The middle of a step,
    on a logarithmic scale, is then just the next level.
    """
    now, after = descent.entry[:-1], descent.exit[:-1]
    down, up = _ancestral(now, after) if is_ancestral else (after, np.zeros_like(after))
    middle = after if is_ancestral else np.sqrt(now * after)
    slope = (down - now) / middle
    first, second = _first_rows(descent), {name: np.zeros(len(now)) for name in "abcs"}
    first["a"][:-1], first["b"][:-1] = middle / now, 1 - middle / now
    second["a"], second["c"] = now / middle + slope, -(now / middle - 1)
    second["b"], second["s"] = -slope, up
    return _interleave(descent, prediction_type, middle, to_timestep(middle), first, second)


def dpmpp_2s_ancestral(descent: Descent, prediction_type: str, to_timestep: ToTimestep) -> StepTable:
    """Singlestep DPM-Solver++ with new noise after each step (k-diffusion's sample_dpmpp_2s_ancestral).

    Steps end below the next level, which is the middle of each step on a logarithmic scale.
    """
    now, after = descent.entry[:-1], descent.exit[:-1]
    down, up = _ancestral(now, after)
    ratio = after / now
    first = _first_rows(descent)
    first["a"][:-1], first["b"][:-1] = ratio, 1 - ratio
    second = {"a": ratio, "c": -ratio * (1 - ratio), "b": 1 - down / now, "s": up}
    return _interleave(descent, prediction_type, after, to_timestep(after), first, second)


def dpmpp_sde(descent: Descent, prediction_type: str, to_timestep: ToTimestep) -> StepTable:
    """Stochastic DPM-Solver++ with noise in both rows (k-diffusion's sample_dpmpp_sde with r 1/2).

    Both rows' noise comes from one Brownian path over sigma, as k-diffusion's sampler takes it from torchsde's tree: the noise of the
    whole step is correlated with that of its first part. Here the first part is recovered from x1, and only the rest is drawn; the
    distribution of images is the same, while the image of one seed is another than torchsde's.
    """
    now, after = descent.entry[:-1], descent.exit[:-1]
    middle = np.sqrt(now * after)
    down_1, up_1 = _ancestral(now, middle)
    down_2, up_2 = _ancestral(now, after)
    ratio, shared = down_1 / now, np.sqrt((now - middle) / (now - after))
    first = _first_rows(descent) | {"f": np.append(np.ones(len(now)), 0.0)}
    first["a"][:-1], first["b"][:-1], first["s"][:-1] = ratio, 1 - ratio, up_1
    again = up_2 * shared / up_1  # times x1 - ratio x0 - (1 - ratio) D_prev, which is up_1 times the first row's noise
    second = {"a": again, "e": down_2 / now - again * ratio, "b": 1 - down_2 / now, "c": -again * (1 - ratio)}
    second["s"] = up_2 * np.sqrt(1 - shared**2)
    return _interleave(descent, prediction_type, middle, to_timestep(middle), first, second)


def _ancestral(now: FloatArray, after: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Level at which a step ends before noise is added, and that noise, which leads up to `after` (k-diffusion's get_ancestral_step)."""
    return after**2 / now, after * np.sqrt(np.maximum(1 - (after / now) ** 2, 0))


def _first_rows(descent: Descent) -> dict[str, FloatArray]:
    """Columns of the first rows of all steps; the last step goes straight to its end."""
    columns = {name: np.zeros(len(descent)) for name in "abs"}
    ratio = descent.exit[-1] / descent.entry[-1]
    columns["a"][-1], columns["b"][-1] = ratio, 1 - ratio
    return columns


def _interleave(
    descent: Descent,
    prediction_type: str,
    middle: FloatArray,
    middle_timestep: FloatArray,
    first: dict[str, FloatArray],
    second: dict[str, FloatArray],
) -> StepTable:
    """The table of 2 * steps - 1 rows; middle: float64[steps - 1], levels of the second rows."""
    rows = 2 * len(descent) - 1

    def woven(at_start: FloatArray | float, in_middle: FloatArray | float) -> FloatArray:
        column = np.empty(rows)
        column[::2], column[1::2] = at_start, in_middle
        return column

    levels = np.append(woven(descent.entry, middle), descent.exit[-1])
    doubled = Descent.through(woven(descent.timestep, middle_timestep), levels, descent.initial_noise_scale)
    input_scale, p, q = read_unscaled(doubled, prediction_type)
    columns = {name: woven(first.get(name, 0.0), second.get(name, 0.0)) for name in "abcsef"}
    return StepTable(descent=doubled, input_scale=input_scale, p=p, q=q, **columns)
