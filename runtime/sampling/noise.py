"""Seeded noise: the same on every device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class NoiseStream:
    """Standard normal noise for a batch; the noise of image i depends on its own seed alone.

    Each image has a Philox counter-based generator (Salmon et al. 2011), NumPy's, which gives the same numbers on every platform.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int]) -> None:
        """shape: channels, height and width of one latent."""
        self._generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        self._shape = shape

    def draw(self) -> npt.NDArray[np.float32]:
        """The next noise of the stream: float32[batch, channels, height, width]."""
        return np.stack([generator.standard_normal(self._shape, dtype=np.float32) for generator in self._generators])
