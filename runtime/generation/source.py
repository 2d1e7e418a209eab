"""What a run begins with instead of noise alone: an image as a latent, and the part of it that is painted anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from costroute_rt.sampling.image_run import noise_weights
from costroute_rt.sampling.scheduler_config import SchedulerConfig
from costroute_rt.sampling.step_table import StepTable

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """An initial image at the size of the request."""

    latent: Float32Array
    """float32[1, channels, height, width]"""
    pixels: npt.NDArray[np.uint8]
    """uint8[height, width, 3]"""
    mask: npt.NDArray[np.bool_] | None = None
    """bool[height, width] in pixels: where the image is painted anew; None means everywhere."""
    strength: float

    def begin(self, config: SchedulerConfig, table: StepTable, noise: Float32Array) -> Float32Array:
        """The latent at the first row: the image with noise; with a mask and a strength of 1 noise alone, as in diffusers."""
        if self.mask is not None and self.strength == 1:
            return noise * np.float32(table.initial_noise_scale)
        return self._noised(config, float(table.noise_levels[0]), noise)

    def restore(self, config: SchedulerConfig, table: StepTable, row: int, latent: Float32Array, noise: Float32Array) -> Float32Array:
        """The latent after a row, with the image outside the mask: at the noise level of the next row, and without noise at the end.

        As diffusers' StableDiffusionInpaintPipeline does it for denoisers that take no mask; noise: that of `begin`.
        """
        is_last = row == len(table) - 1
        known = self.latent if is_last else self._noised(config, float(table.noise_levels[row + 1]), noise)
        return np.where(self._cells(), latent, known)

    def paste(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The finished image, uint8[1, height, width, 3], with the initial image's own pixels outside the mask."""
        return pixels if self.mask is None else np.where(self.mask[None, :, :, None], pixels, self.pixels)

    def _noised(self, config: SchedulerConfig, level: float, noise: Float32Array) -> Float32Array:
        alpha, sigma = noise_weights(config, level)
        return np.float32(alpha) * self.latent + np.float32(sigma) * noise

    def _cells(self) -> npt.NDArray[np.bool_]:
        """bool[1, 1, h, w]: the mask at the upper left pixel of each cell of the latent, as diffusers' nearest neighbour has it."""
        mask = np.ones(self.pixels.shape[:2], dtype=np.bool_) if self.mask is None else self.mask
        factor = mask.shape[0] // self.latent.shape[2]
        return mask[None, None, ::factor, ::factor]
