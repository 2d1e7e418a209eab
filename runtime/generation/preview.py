"""Previews of the image in progress, without a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.manifest import PreviewSpec

if TYPE_CHECKING:
    from PIL.Image import Image


def draw_preview(latent: npt.NDArray[np.float32], spec: PreviewSpec, height: int, width: int) -> Image:
    """A rough preview of a clean latent, float32[channels, h, w], by a linear map of each cell to RGB."""
    from PIL import Image

    cells = np.tensordot(latent, np.array(spec.matrix, dtype=np.float32), axes=(0, 0)) + np.array(spec.bias, dtype=np.float32)
    small = (np.clip(np.nan_to_num(cells), 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
