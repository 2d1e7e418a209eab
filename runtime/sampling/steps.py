"""Choosing the steps of a run: its timesteps and noise levels, before a solver turns them into rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.sampling import noise_schedule
from costroute_rt.sampling.scheduler_config import SchedulerConfig
from costroute_rt.sampling.sigma_spacing import space_levels, space_train_timesteps
from costroute_rt.sampling.step_table import Descent, FloatArray

_BY_TIMESTEPS = ("simple", "sgm_uniform", "beta_timesteps")
_LEAST_SIGNAL = 1e-6
_LARGEST_MU = 100.0
"""Larger values, which overflow, give a shift that is refused as too large."""


def shift_by_tokens(config: SchedulerConfig, tokens: int | None) -> SchedulerConfig:
    """The scheduler with the shift for an image of `tokens` latent tokens, as diffusers' FLUX pipelines compute it."""
    if not config.use_dynamic_shifting:
        return config
    if tokens is None or tokens < 1:
        raise ConfigError("tokens", tokens, "the number of latent tokens, which this scheduler's shift depends on")
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = config.base_shift + slope * (tokens - config.base_image_seq_len)
    if config.time_shift_type == "linear":
        return replace(config, shift=mu)
    return replace(config, shift=math.exp(min(mu, _LARGEST_MU)))


def choose_ddim(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    """Steps that each aim a fixed stride below their timestep, as in diffusers; the next need not start there (7 steps of 1000)."""
    signal = train_signal(config)
    timestep = _space(config, num_inference_steps).round()
    if timestep[0] >= config.num_train_timesteps:
        raise ConfigError("steps_offset", config.steps_offset, f"timesteps below {config.num_train_timesteps}, not {timestep[0]:.0f}")
    now = timestep.astype(np.int64)
    target = now - config.num_train_timesteps // num_inference_steps
    last = 1.0 if config.set_alpha_to_one else signal[0]
    signal_after = np.where(target >= 0, signal[np.maximum(target, 0)], last)
    return Descent(timestep=timestep, entry=np.sqrt(1 - signal[now]), exit=np.sqrt(1 - signal_after))


def choose_ddpm(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    signal = train_signal(config)
    timestep = _space(config, num_inference_steps).round()
    if timestep[0] >= config.num_train_timesteps:
        raise ConfigError("steps_offset", config.steps_offset, f"timesteps below {config.num_train_timesteps}, not {timestep[0]:.0f}")
    return Descent.through(timestep, np.append(np.sqrt(1 - signal[timestep.astype(np.int64)]), 0.0))


def choose_distilled(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    """An evenly spaced selection of the distillation's timesteps; timestep_spacing has no effect. tcd ends at timestep 0."""
    original = config.original_inference_steps
    if not num_inference_steps <= original <= config.num_train_timesteps:
        raise ConfigError("num_inference_steps", num_inference_steps, f"1 to {original}, the model's original_inference_steps")
    distilled = np.arange(original, 0, -1) * (config.num_train_timesteps // original) - 1
    now = distilled[np.floor(np.linspace(0, original, num_inference_steps, endpoint=False)).astype(np.int64)]
    signal = train_signal(config)
    levels = np.append(np.sqrt(1 - signal[now]), math.sqrt(1 - signal[0]) if config.name == "tcd" else 0.0)
    return Descent.through(now.astype(np.float64), levels)


def choose_unscaled(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    train_sigmas = noise_schedule.to_sigmas(train_signal(config))
    timestep = _space(config, num_inference_steps)
    sigmas = np.interp(timestep, np.arange(len(train_sigmas)), train_sigmas)
    if config.sigma_schedule != "timesteps":
        sigmas, timestep = _respace(config, sigmas[0], sigmas[-1], train_sigmas, num_inference_steps)
        if config.name.startswith("kdpm2") and config.sigma_schedule == "karras":
            timestep = timestep.round()
    # The denoiser sees x / sqrt(1 + sigma^2); with "leading", diffusers starts such that this has exactly unit variance.
    start = math.hypot(sigmas[0], 1) if config.timestep_spacing == "leading" else float(sigmas[0])
    ends_clean = config.final_sigmas_type == "zero" or config.name != "euler"
    return Descent.through(timestep, np.append(sigmas, 0.0 if ends_clean else train_sigmas[0]), start)


def choose_dpmpp(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    train_sigmas = noise_schedule.to_sigmas(train_signal(config))
    used = len(train_sigmas) - int(np.searchsorted(-np.log(train_sigmas[::-1]), config.lambda_min_clipped))
    timestep, sigmas = _choose_inner(config, num_inference_steps, used, train_sigmas)
    return Descent.through(timestep, np.append(sigmas, 0.0 if config.final_sigmas_type == "zero" else train_sigmas[0]))


def choose_unipc(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    train_sigmas = noise_schedule.to_sigmas(train_signal(config))
    timestep, sigmas = _choose_inner(config, num_inference_steps, config.num_train_timesteps, train_sigmas)
    lowest = train_sigmas[0] if config.sigma_schedule == "timesteps" else sigmas[-1]
    return Descent.through(timestep, np.append(sigmas, 0.0 if config.final_sigmas_type == "zero" else lowest))


def _choose_inner(config: SchedulerConfig, num_inference_steps: int, used: int, train_sigmas: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Timesteps and sigmas of dpmpp and unipc: whole timesteps, truncated where diffusers truncates them."""
    if config.sigma_schedule == "timesteps":
        timestep = noise_schedule.space_inner_timesteps(
            config.timestep_spacing, num_inference_steps, config.num_train_timesteps, used, config.steps_offset
        )
        return timestep, np.interp(timestep, np.arange(len(train_sigmas)), train_sigmas)
    sigmas, timestep = _respace(config, train_sigmas[-1], train_sigmas[0], train_sigmas, num_inference_steps)
    is_truncated = config.beta_schedule == "squaredcos_cap_v2" and config.name in ("dpmpp_2m", "dpmpp_3m")
    if config.sigma_schedule in ("exponential", "beta") or is_truncated:
        return np.trunc(timestep), sigmas
    return timestep.round(), sigmas


def _respace(config: SchedulerConfig, high: float, low: float, train_sigmas: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Sigmas and timesteps by `config.sigma_schedule`; high, low: the range, for schedules that have none of their own."""
    if config.sigma_schedule in _BY_TIMESTEPS:
        timestep = space_train_timesteps(config.sigma_schedule, count, config.num_train_timesteps)
        return np.interp(timestep, np.arange(len(train_sigmas)), train_sigmas), timestep
    sigmas = space_levels(config.sigma_schedule, float(high), float(low), count)
    return sigmas, noise_schedule.sigma_to_timestep(sigmas, train_sigmas)


def choose_flow_dpmpp(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    """Shifted flow times; like diffusers, the timesteps are truncated to whole numbers, slightly below their noise levels."""
    times = 1 - np.linspace(1, 1 / config.num_train_timesteps, num_inference_steps + 1)
    sigmas = _shifted_times(config, num_inference_steps, times[:0:-1])
    end = 0.0 if config.final_sigmas_type == "zero" else noise_schedule.to_sigmas(train_signal(config)[:1])[0]
    return Descent.through(np.trunc(sigmas * config.num_train_timesteps), np.append(sigmas, end))


def choose_flow_unipc(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    times = np.linspace(1, 1 / config.num_train_timesteps, num_inference_steps + 1)[:-1]
    sigmas = _shifted_times(config, num_inference_steps, times)
    return Descent.through(
        np.trunc(sigmas * config.num_train_timesteps), np.append(sigmas, 0.0 if config.final_sigmas_type == "zero" else sigmas[-1])
    )


def _shifted_times(config: SchedulerConfig, count: int, usual: FloatArray) -> FloatArray:
    """Shifted flow times; a first level of 1, whose signal of 0 has no logarithm, is lowered by 1e-6 in float32, as in diffusers."""
    sigmas = noise_schedule.shift_flow(usual if config.sigma_schedule == "timesteps" else _flow_times(config, count), config.shift)
    if abs(sigmas[0] - 1) < _LEAST_SIGNAL:
        sigmas[0] = np.float32(sigmas[0] - _LEAST_SIGNAL)
    return sigmas


def _flow_times(config: SchedulerConfig, count: int) -> FloatArray:
    """Flow times for the schedules that space timesteps: a timestep t of n stands for (t + 1) / n."""
    steps = config.num_train_timesteps
    return (space_train_timesteps(config.sigma_schedule, count, steps) + 1) / steps


def choose_flow(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    """diffusers' default sigmas, whose lowest is shifted twice: once for sigma_min and once here.

    With use_dynamic_shifting, the sigmas that its FLUX pipelines pass instead: from 1 to 1 / steps, shifted.
    """
    count = config.num_train_timesteps
    if config.sigma_schedule in _BY_TIMESTEPS:
        times = _flow_times(config, num_inference_steps)
    elif config.use_dynamic_shifting:
        times = np.linspace(1, 1 / num_inference_steps, num_inference_steps)
    else:
        times = np.linspace(count, noise_schedule.shift_flow(np.array(1 / count), config.shift) * count, num_inference_steps) / count
    sigmas = noise_schedule.shift_flow(times, config.shift)
    if config.shift_terminal:
        if num_inference_steps == 1:
            raise ConfigError("num_inference_steps", 1, "2 or more with shift_terminal, which is the level of the last of them")
        sigmas = 1 - (1 - sigmas) * (1 - config.shift_terminal) / (1 - sigmas[-1])
    if config.sigma_schedule not in ("timesteps", *_BY_TIMESTEPS):
        sigmas = space_levels(config.sigma_schedule, float(sigmas[0]), float(sigmas[-1]), num_inference_steps)
    return Descent.through(sigmas * count, np.append(sigmas, 0.0))


def train_signal(config: SchedulerConfig) -> FloatArray:
    """Share of signal at each training timestep, see `noise_schedule.alphas_cumprod`."""
    return noise_schedule.alphas_cumprod(
        config.num_train_timesteps, config.beta_start, config.beta_end, config.beta_schedule, config.rescale_betas_zero_snr
    )


def _space(config: SchedulerConfig, num_inference_steps: int) -> FloatArray:
    return noise_schedule.space_timesteps(config.timestep_spacing, num_inference_steps, config.num_train_timesteps, config.steps_offset)
