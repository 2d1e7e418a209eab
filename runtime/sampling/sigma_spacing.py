"""Spacing of noise levels: where a run's steps lie between the highest level and the lowest.

timesteps                the levels of the timesteps that timestep_spacing chooses, without a function here
karras, exponential, lu, beta, kl_optimal
                         between two levels, by a formula; lu is exponential with whole timesteps
align_your_steps_sd15, align_your_steps_sdxl
                         published lists
simple, sgm_uniform, beta_timesteps
                         the levels of timesteps that are spaced in another way
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.sampling.beta_quantile import beta_quantile
from costroute_rt.sampling.step_table import FloatArray

_RHO = 7.0
_ALIGN_YOUR_STEPS = {
    "align_your_steps_sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "align_your_steps_sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}
"""Levels of 10 steps, and the level below the last of them: Sabour et al. 2024, "Align Your Steps", their published quick start."""


def space_levels(schedule: str, high: float, low: float, count: int) -> FloatArray:
    """Falling noise levels, float64[count], from `high` to `low`; schedule: one that needs no timesteps."""
    if schedule == "karras":
        levels = _karras(high, low, count)
    elif schedule in ("exponential", "lu"):  # lu is uniform in log(sigma) too (Lu et al. 2022, Section 4.1)
        levels = np.exp(np.linspace(np.log(high), np.log(low), count))
    elif schedule == "beta":
        levels = low + (high - low) * _beta(np.linspace(1, 0, count))
    elif schedule == "kl_optimal":
        levels = np.tan(np.linspace(np.arctan(high), np.arctan(low), count))
    else:
        return _align_your_steps(schedule, count)
    levels = np.clip(levels, low, high)
    levels[0], levels[-1] = high, low if count > 1 else high
    return levels


def space_train_timesteps(schedule: str, count: int, num_train_timesteps: int) -> FloatArray:
    """Falling timesteps, float64[count], 0 to num_train_timesteps - 1, for simple, sgm_uniform and beta_timesteps (ComfyUI's)."""
    last = num_train_timesteps - 1
    timesteps: FloatArray
    if schedule == "sgm_uniform":
        timesteps = np.linspace(last, 0, count + 1)[:-1]
        return timesteps
    if schedule == "simple":
        timesteps = last - np.floor(np.arange(count) * (num_train_timesteps / count))
        return timesteps
    timesteps = np.rint(_beta(1 - np.linspace(0, 1, count, endpoint=False)) * last)
    if (np.diff(timesteps) == 0).any():  # ComfyUI leaves out the second
        raise ConfigError("num_inference_steps", count, "fewer steps with beta_timesteps, which would visit a timestep twice")
    return timesteps


def _karras(high: float, low: float, count: int) -> FloatArray:
    """Karras et al. 2022, "Elucidating the Design Space", equation 5 with rho 7."""
    ramp = np.linspace(0, 1, count)
    top, bottom = high ** (1 / _RHO), low ** (1 / _RHO)
    levels: FloatArray = (top + ramp * (bottom - top)) ** _RHO
    return levels


def _align_your_steps(schedule: str, count: int) -> FloatArray:
    """The first `count` of the published levels, resampled to count + 1 along their logarithms; the last is replaced by the end."""
    published = np.log(_ALIGN_YOUR_STEPS[schedule])
    places = np.linspace(0, len(published) - 1, count + 1)
    return np.exp(np.interp(places, np.arange(len(published)), published))[:-1]


def _beta(share: FloatArray) -> FloatArray:
    """Quantiles of the distribution Beta(0.6, 0.6): Lee et al. 2024, "Beta Sampling is All You Need"."""
    return np.array(_beta_quantiles(tuple(share.tolist())))


@lru_cache(maxsize=64)
def _beta_quantiles(shares: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(beta_quantile(np.array(shares), 0.6).tolist())
