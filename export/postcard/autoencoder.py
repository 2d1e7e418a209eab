"""Training of the autoencoder on crops of drawn scenes: first encoder and decoder together, then the decoder alone.

The loss on the difference d to the drawing is |d| + d^2 / 2, plus edges |grad d| at full and half size, plus |d| at quarter size; pixels
inside object boxes count three times. Noise is added to latents before decoding, so that the decoder tolerates a denoiser's errors.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from costroute_rt.export.postcard.dataset import GRID, IMAGE_SIZE, Shard
from costroute_rt.export.postcard.networks import LATENT_CHANNELS
from costroute_rt.export.postcard.training import Run

logger = logging.getLogger(__name__)
CROP = 128
BATCH = 10
RATE = 2e-3
PLAIN = ("conv_in", "conv_out")
"""Layers trained by AdamW, see Optimizer."""
DOWN = IMAGE_SIZE // GRID


class Crops:
    """Random crops of rendered shards: float[B, 3, CROP, CROP] in -1..1 and pixel weights float[B, 1, CROP, CROP]."""

    def __init__(self, shards: Sequence[Shard], seed: int) -> None:
        self.images = [shard.array("images") for shard in shards]
        self.masks = [shard.array("masks") for shard in shards]
        self.rng = np.random.default_rng(seed)

    def sample(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        images, masks = [], []
        for _ in range(count):
            shard = self.rng.integers(len(self.images))
            row = self.rng.integers(len(self.images[shard]))
            y, x = self.rng.integers(0, (IMAGE_SIZE - CROP) // DOWN + 1, 2)
            images.append(self.images[shard][row, y * DOWN : y * DOWN + CROP, x * DOWN : x * DOWN + CROP])
            masks.append(self.masks[shard][row, y : y + CROP // DOWN, x : x + CROP // DOWN])
        return to_float(np.stack(images), device), pixel_weight(np.stack(masks), device)


def to_float(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """uint8[B, H, W, 3] -> float32[B, 3, H, W] in -1..1, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def pixel_weight(masks: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Share of each cell inside objects, uint8[B, h, w] -> float32[B, 1, 16 h, 16 w]: 3 inside objects, 1 outside, divided by 1.4."""
    cover = torch.from_numpy(masks).to(device).float().div_(255)[:, None]
    return F.interpolate(1 + 2 * cover, scale_factor=DOWN) / 1.4


def edges(d: Tensor, weight: Tensor) -> Tensor:
    """Mean weighted differences of neighbouring pixels, across and down."""
    across = (d[..., 1:] - d[..., :-1]).abs() * weight[..., 1:]
    down = (d[..., 1:, :] - d[..., :-1, :]).abs() * weight[..., 1:, :]
    return across.mean() + down.mean()


def reconstruction_loss(output: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    """The loss described at the top of this file; weight: float[B, 1, H, W], mean about 1."""
    d = output - image
    pixel = (d.abs() * weight).mean() + 0.5 * (d * d * weight).mean()
    half, half_weight = F.avg_pool2d(d, 2), F.avg_pool2d(weight, 2)
    quarter = F.avg_pool2d(half, 2)
    return pixel + 0.5 * edges(d, weight) + 0.5 * edges(half, half_weight) + 0.5 * quarter.abs().mean()


def encode(vae: AutoencoderKL, image: Tensor) -> Tensor:
    """Mean of the posterior, float[B, 16, H/16, W/16]; the variance half of the encoder's output is not used."""
    return vae.encoder(image)[:, :LATENT_CHANNELS]


def train_together(vae: AutoencoderKL, drawings: Sequence[Shard], path: Path, minutes: float) -> None:
    """Trains encoder and decoder; leaves averaged weights with unit-variance latents in `vae`."""
    run, crops = Run(vae, path, minutes, RATE, PLAIN), Crops(drawings, seed=1)
    device = next(vae.parameters()).device
    for _ in run:
        image, weight = crops.sample(BATCH, device)
        latent = encode(vae, image)
        noise = 0.08 * torch.rand(len(image), 1, 1, 1, device=device) * torch.randn_like(latent)
        output = vae.decoder(latent + noise)
        run.step(reconstruction_loss(output.float(), image, weight) + 1e-3 * latent.float().square().mean())
    vae.load_state_dict(run.average.state_dict())
    normalise(vae, crops.sample(256, device)[0])


@torch.no_grad()
def normalise(vae: AutoencoderKL, image: Tensor) -> None:
    """Scales each latent channel to zero mean and unit variance over `image`, in the weights; fixes the posterior's variance near zero.

    This changes the value that the decoder's zero padding stands for; the decoder training that follows corrects it.
    """
    latent = torch.cat([encode(vae, part) for part in image.split(16)])
    mean, std = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
    out, into = vae.encoder.conv_out, vae.decoder.conv_in
    out.weight[:LATENT_CHANNELS] /= std[:, None, None, None]
    out.bias[:LATENT_CHANNELS] = (out.bias[:LATENT_CHANNELS] - mean) / std
    out.weight[LATENT_CHANNELS:] = 0
    out.bias[LATENT_CHANNELS:] = -12
    into.bias += (into.weight * mean[None, :, None, None]).sum((1, 2, 3))
    into.weight *= std[None, :, None, None]


def train_decoder(vae: AutoencoderKL, drawings: Sequence[Shard], path: Path, minutes: float) -> None:
    """Trains the decoder alone; the encoder is frozen, so that denoisers trained on its latents stay valid."""
    vae.encoder.requires_grad_(False)
    run, crops = Run(vae.decoder, path, minutes, RATE / 2, PLAIN, flat=0.3), Crops(drawings, seed=2)
    device = next(vae.parameters()).device
    for _ in run:
        image, weight = crops.sample(BATCH, device)
        with torch.no_grad():
            latent = encode(vae, image)
            latent = latent + 0.15 * torch.rand(len(image), 1, 1, 1, device=device) * torch.randn_like(latent)
        run.step(reconstruction_loss(vae.decoder(latent).float(), image, weight))
    vae.decoder.load_state_dict(run.average.state_dict())


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encodes and decodes uint8[N, 256, 256, 3]."""
    device = next(vae.parameters()).device
    parts = [vae.decoder(encode(vae, to_float(part, device))) for part in np.array_split(images, max(1, len(images) // 8))]
    levels = (torch.cat(parts).clamp(-1, 1) + 1) * 127.5
    return levels.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def psnr(output: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio, mean over images, in dB."""
    error = ((output.astype(np.float64) - image) ** 2).mean((1, 2, 3)) / 255**2
    return float(np.mean(-10 * np.log10(error)))
