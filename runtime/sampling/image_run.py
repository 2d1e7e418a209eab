"""Runs that begin at an image: noised to the level of a later row of a table, and denoised by the rows from there on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.sampling.scheduler import SCHEDULERS
from costroute_rt.sampling.scheduler_config import KINDS, SchedulerConfig
from costroute_rt.sampling.step_table import COLUMNS, MEMORY, Descent, StepTable

_UNSCALED = frozenset({"euler", "euler_ancestral", "heun", "kdpm2", "kdpm2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"})
_PRESERVING = frozenset({"ddim", "ddpm", "lcm", "tcd"})
_GROUPED = frozenset({"dpmpp_3s", "flow_dpmpp_3s"})
"""Their rows go back to the first of a group of three: a run that would begin inside a group begins a new one, unlike in diffusers."""
_DEPTH = 2
"""Rows back that a row may use."""


def steps_of(num_inference_steps: int, strength: float) -> int:
    """Steps of a run from an image that is changed by `strength`, 0 to 1; diffusers' StableDiffusionImg2ImgPipeline.get_timesteps."""
    return min(int(num_inference_steps * strength), num_inference_steps)


def begin_at_image(config: SchedulerConfig, table: StepTable, num_inference_steps: int, strength: float) -> StepTable:
    """The rows of the last `steps_of` steps of a whole run's table, as for a new run: none uses what earlier rows computed.

    Raises ConfigError if no step is left.
    """
    steps = steps_of(num_inference_steps, strength)
    if steps < 1:
        raise ConfigError("strength", strength, f"{1 / num_inference_steps:.3g} or more, for one of {num_inference_steps} steps")
    row = (num_inference_steps - steps) * KINDS[config.name].rows_per_step
    tail = table.tail(row)
    if not any(np.asarray(getattr(tail, column))[0] for column in "ceh"):
        return replace(tail, descent=replace(tail.descent, before=()))
    descent = Descent.through(tail.timestep, tail.noise_levels, table.initial_noise_scale)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        fresh = SCHEDULERS[config.name].solve(config, descent).with_guidance(tail.guidance)
    return fresh if config.name in _GROUPED else _join(fresh, tail)


def _join(fresh: StepTable, tail: StepTable) -> StepTable:
    """The first two rows of a new run, which know less than those of a whole run, and the rest of the whole run."""
    names = [name for name in (*COLUMNS, *MEMORY) if name not in ("timestep", "guidance")]
    columns: dict[str, Any] = {name: np.concatenate([getattr(fresh, name)[:_DEPTH], getattr(tail, name)[_DEPTH:]]) for name in names}
    return replace(fresh, **columns)


def noise_weights(config: SchedulerConfig, level: float) -> tuple[float, float]:
    """(alpha, sigma) of the latent alpha * x0 + sigma * n at a level in the scheduler's own terms, for unit noise n (see `solver`)."""
    if config.name in _UNSCALED:
        return 1.0, level
    if config.name in _PRESERVING:
        return float(np.sqrt(1 - level**2)), level
    if config.prediction_type == "flow_prediction":
        return 1 - level, level
    alpha = float(1 / np.hypot(level, 1))
    return alpha, level * alpha
