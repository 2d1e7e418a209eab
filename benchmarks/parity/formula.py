"""Schedulers that diffusers lacks, or has wrong, from the formulas of k-diffusion, in the form of diffusers' schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

Draw = Callable[[], Any]
"""Returns the next noise."""


class Ancestral2S:
    """k-diffusion's sample_dpmpp_2s_ancestral with eta 1: two calls of the denoiser for each step but the last."""

    order = 2

    def __init__(self, base: Any) -> None:
        """base: an EulerDiscreteScheduler, for its noise levels."""
        self.base = base
        self._start: Any = None
        self.draw: Draw = lambda: 0.0
        """Replaced by the noise to add."""
        self.config = base.config

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Timesteps of the levels, and of those between a level and the lower end of its ancestral step."""
        import torch

        self.base.set_timesteps(num_inference_steps)
        self._levels = [float(sigma) for sigma in self.base.sigmas]
        signal = self.base.alphas_cumprod.double().numpy()
        known = np.log(np.sqrt((1 - signal) / signal))
        self.init_noise_sigma = max(self._levels) if self.config.timestep_spacing != "leading" else math.hypot(max(self._levels), 1)
        self._calls: list[tuple[int, float]] = []
        times = []
        for index, now in enumerate(self._levels[:-1]):
            self._calls.append((index, now))
            times.append(float(self.base.timesteps[index]))
            if self._levels[index + 1] > 0:
                middle = math.sqrt(now * self._down(index))
                self._calls.append((index, middle))
                times.append(float(np.interp(math.log(middle), known, np.arange(len(known)))))
        self.timesteps, self._row = torch.tensor(times, dtype=torch.float32), 0

    def _down(self, index: int) -> float:
        """Where the step without noise ends."""
        now, after = self._levels[index : index + 2]
        up = min(after, (after**2 * (now**2 - after**2) / now**2) ** 0.5)
        return math.sqrt(after**2 - up**2)

    def scale_model_input(self, sample: Any, timestep: Any) -> Any:
        return sample / math.hypot(self._calls[self._row][1], 1)

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True, **_: Any) -> Any:
        index, level = self._calls[self._row]
        now, after = self._levels[index : index + 2]
        is_middle = self._row > 0 and self._calls[self._row - 1][0] == index
        denoised = self._denoised(model_output, sample, level)
        if after == 0:
            found = denoised
        else:
            down = self._down(index)
            half = 0.5 * (math.log(now) - math.log(down))
            if is_middle:
                up = (after**2 - down**2) ** 0.5
                found = down / now * self._start - math.expm1(-2 * half) * denoised + up * self.draw()
            else:
                self._start = sample
                found = level * math.exp(-half) / now * sample - math.expm1(-half) * denoised
        self._row += 1
        return SimpleNamespace(prev_sample=found) if return_dict else (found,)

    def _denoised(self, model_output: Any, sample: Any, level: float) -> Any:
        if self.config.prediction_type == "v_prediction":
            scale = level**2 + 1
            return sample / scale - model_output * (level / math.sqrt(scale))
        return sample - level * model_output


class BrownianPath:
    """In place of torchsde's tree: two increments for each step, from its start to its middle and from there to its end."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._first: Any = None

    def __call__(self, start: Any, end: Any) -> Any:
        """The increment from start to end, of unit variance: the first of a step, or both."""
        if self._first is None:
            self._first = self._draw()
            return self._first
        share = float((start - (start * end) ** 0.5) / (start - end)) ** 0.5
        found = share * self._first + math.sqrt(1 - share**2) * self._draw()
        self._first = None
        return found


def sde_third_order(scheduler: Any, model_outputs: list[Any], *, sample: Any, noise: Any) -> Any:
    """One step of sde-dpmsolver++ of order 3: diffusers' formula with + 0.5 in place of - 0.5 (phi_3 of 2 h, see k-diffusion's 3M SDE)."""
    i = scheduler.step_index
    pairs = [scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[i + back].double()) for back in (1, 0, -1, -2)]
    (alpha_t, sigma_t), (_, sigma_0) = pairs[:2]
    lam = [math.log(alpha) - math.log(sigma) for alpha, sigma in pairs]
    h, r0, r1 = lam[0] - lam[1], (lam[1] - lam[2]) / (lam[0] - lam[1]), (lam[2] - lam[3]) / (lam[0] - lam[1])
    d0, d1, d2 = model_outputs[::-1]
    slope_0, slope_1 = (d0 - d1) / r0, (d1 - d2) / r1
    first = slope_0 + r0 / (r0 + r1) * (slope_0 - slope_1)
    second = (slope_0 - slope_1) / (r0 + r1)
    phi = 1 - math.exp(-2 * h)
    x = sigma_t / sigma_0 * math.exp(-h) * sample + alpha_t * phi * d0 + alpha_t * (1 - phi / (2 * h)) * first
    return x + alpha_t * ((phi - 2 * h) / (2 * h) ** 2 + 0.5) * second + sigma_t * math.sqrt(phi) * noise
