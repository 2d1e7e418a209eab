"""Scaling of a VAE's latents, and a linear preview of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_IMAGES = 16
_CELLS = 16
_PATCHES = 5


def latent_scaling(config: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale and shift, one number or one per channel: the decoder takes latent * scale + shift.

    As in diffusers' pipelines: from scaling_factor, and from shift_factor or latents_mean and latents_std if the VAE has them.
    """
    factor = float(config["scaling_factor"])
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        return np.asarray(std, dtype=np.float64).ravel() / factor, np.asarray(mean, dtype=np.float64).ravel()
    return np.array(1 / factor), np.array(float(config.get("shift_factor") or 0.0))


def fit_preview(vae: Any, scale: npt.NDArray[np.float64], shift: npt.NDArray[np.float64]) -> dict[str, Any]:
    """The linear map from a latent cell to RGB that fits best (least squares) on smooth patches of random colours.

    Returns {"matrix": [channels][3], "bias": [3]}: latent @ matrix + bias is RGB in 0..1.
    """
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    coarse = torch.rand(_IMAGES, 3, _PATCHES, _PATCHES, generator=generator)
    images = functional.interpolate(coarse, size=(_CELLS * factor, _CELLS * factor), mode="bilinear")
    with torch.no_grad():
        latents = torch.cat([vae.encode(image[None] * 2 - 1).latent_dist.mode() for image in images])
    colors = functional.avg_pool2d(images, factor).permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    cells = latents.permute(0, 2, 3, 1).reshape(len(colors), -1).double().numpy()
    design = np.hstack([(cells - shift) / scale, np.ones((len(cells), 1))])
    solution = np.linalg.lstsq(design, colors, rcond=None)[0].round(6)
    return {"matrix": solution[:-1].tolist(), "bias": solution[-1].tolist()}
