"""Noise schedules: the schedule a model was trained with, and the timesteps and noise levels that a run visits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError
from costroute_rt.sampling.step_table import FloatArray

Float32Array = npt.NDArray[np.float32]

NEARLY_ZERO_SIGNAL = 2.0**-24
"""Replaces a signal of 0, whose sigma would be infinite; diffusers' value."""


@lru_cache(maxsize=32)
def alphas_cumprod(num_train_timesteps: int, beta_start: float, beta_end: float, beta_schedule: str, has_zero_snr: bool) -> FloatArray:
    """Share of signal in the variance at each training timestep: float64[num_train_timesteps], falling, 0 to 1, read-only.

    Values are rounded to float32 at the points where diffusers rounds them, because models were trained on the rounded values and the
    difference 1 - alphas_cumprod depends on the rounding. has_zero_snr: the last value is 0 (Lin et al. 2024, "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", Algorithm 1).
    """
    betas = _train_betas(num_train_timesteps, beta_start, beta_end, beta_schedule)
    signal = _cumprod(1 - betas)
    if has_zero_snr:
        root = np.sqrt(signal)
        rescaled = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
        # Through the betas once more, as diffusers does, because each conversion rounds.
        rescaled_betas = 1 - np.concatenate([rescaled[:1], rescaled[1:] / rescaled[:-1]])
        signal = _cumprod(1 - rescaled_betas)
    result = signal.astype(np.float64)
    result.setflags(write=False)
    return result


def _train_betas(count: int, start: float, end: float, beta_schedule: str) -> Float32Array:
    if beta_schedule == "squaredcos_cap_v2":
        t = np.arange(count + 1) / count
        signal = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.asarray(np.minimum(1 - signal[1:] / signal[:-1], 0.999), np.float32)
    if beta_schedule == "scaled_linear":
        return np.square(_linspace(start**0.5, end**0.5, count))
    return _linspace(start, end, count)


def _linspace(start: float, end: float, count: int) -> Float32Array:
    """float32[count] with the values of torch.linspace: a float32 stride, from both ends to the middle."""
    first, last = np.float32(start), np.float32(end)
    stride = float((last - first) / np.float32(count - 1))
    i = np.arange(count)
    return np.where(i < count // 2, float(first) + stride * i, float(last) - stride * (count - 1 - i)).astype(np.float32)


def _cumprod(alphas: Float32Array) -> Float32Array:
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def to_sigmas(signal: FloatArray) -> FloatArray:
    """Sigmas (noise for data of unit scale) from alphas_cumprod, in float32 precision; a signal of 0 gives a large sigma, not infinity."""
    single = np.where(signal == 0, NEARLY_ZERO_SIGNAL, signal).astype(np.float32)
    return np.asarray(np.sqrt((1 - single) / single), np.float64)


def space_timesteps(spacing: str, num_inference_steps: int, num_train_timesteps: int, steps_offset: int) -> FloatArray:
    """Falling timesteps, float64[num_inference_steps]; `spacing` as in Table 2 of Lin et al. 2024, rounded as diffusers does."""
    if spacing == "linspace":
        return np.linspace(0.0, num_train_timesteps - 1.0, num_inference_steps)[::-1]
    if spacing == "leading":
        stride = num_train_timesteps // num_inference_steps
        return np.arange(num_inference_steps, dtype=np.float64)[::-1] * stride + steps_offset
    return _trail(num_train_timesteps, num_train_timesteps, num_inference_steps)


def space_inner_timesteps(spacing: str, num_inference_steps: int, num_train_timesteps: int, last: int, steps_offset: int) -> FloatArray:
    """The timesteps of dpmpp_2m and unipc, which space one timestep more than `space_timesteps` and leave out the lowest.

    last: number of training timesteps in use, fewer than num_train_timesteps if lambda_min_clipped cuts off the noisiest ones.
    """
    if spacing == "linspace":
        return np.linspace(0, last - 1, num_inference_steps + 1).round()[:0:-1]
    if spacing == "leading":
        stride = last // (num_inference_steps + 1)
        if stride == 0:
            raise ConfigError("num_inference_steps", num_inference_steps, f"fewer than {last} with timestep_spacing 'leading'")
        return np.arange(1, num_inference_steps + 1, dtype=np.float64)[::-1] * stride + steps_offset
    return _trail(last, num_train_timesteps, num_inference_steps)


def _trail(last: int, num_train_timesteps: int, num_inference_steps: int) -> FloatArray:
    # diffusers' arange has one value too many for 62 of the step counts from 1 to 1,000 (61, 103, ...), a timestep of -1; it is cut off.
    # Like diffusers' arange, this one has too few values if lambda_min_clipped lowers `last`.
    stride = num_train_timesteps / num_inference_steps
    timesteps: FloatArray = np.arange(last, 0, -stride, dtype=np.float64).round()[:num_inference_steps] - 1
    return timesteps


def sigma_to_timestep(sigmas: FloatArray, train_sigmas: FloatArray) -> FloatArray:
    """Fractional timesteps at which the training schedule has these sigmas, by linear interpolation of their logarithms.

    The training sigmas are rounded to float32, so that timesteps truncated to whole numbers later are those of diffusers.
    """
    logs = np.log(train_sigmas.astype(np.float32))
    return np.interp(np.log(np.maximum(sigmas, 1e-10)), logs, np.arange(len(logs)))


def shift_flow(sigmas: FloatArray, shift: float) -> FloatArray:
    """Flow times moved towards noise for shift above 1 (Esser et al. 2024, "Scaling Rectified Flow Transformers", equation 23)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)
