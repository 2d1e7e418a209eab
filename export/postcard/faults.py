"""Examples of clean images and of faults, at half size, for the training of `cleanness`.

A shard holds SHARD examples of each kind of CLEAN and UNCLEAN: `drawn-0007.npy` uint8[SHARD, 128, 128, 3] and so on.
"""

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from costroute_rt.export.postcard.autoencoder import reconstruct
from costroute_rt.export.postcard.bundle import GUIDANCE
from costroute_rt.export.postcard.dataset import SHARD, Shard
from costroute_rt.export.postcard.scene import sample_scene
from costroute_rt.export.postcard.tiny_decoder import SAMPLED, decode

logger = logging.getLogger(__name__)
Halves = NDArray[np.uint8]
CLEAN = ("drawn", "decoded")
"""Drawings; and the same, encoded and decoded."""
UNCLEAN = ("generated", "mixed", "doubled")
GENERATED_STEPS = {"turbo": (1, 2, 4, 8), "base": (1, 2, 4, 6, 8, 16)}
"""Steps of the generated images by denoiser: also numbers that the pool does not have, so that every degree of a fault occurs."""
NOISE = 0.12
"""Largest standard deviation of noise in latents of clean images: less than the decoder was trained to remove."""
SHARES = (0.15, 0.5)
"""Least and greatest share of the second of two mixed latents."""


def generated_rows() -> list[dict[str, object]]:
    """Candidates, as rows of a pool, that make the generated images."""
    return [
        {"denoiser": denoiser, "num_inference_steps": steps, "guidance_scale": 1.0 if denoiser == "turbo" else GUIDANCE}
        for denoiser, counts in GENERATED_STEPS.items()
        for steps in counts
    ]


def make_examples(vae: AutoencoderKL, drawings: Shard, generated: Shard, folder: Path) -> None:
    """Writes the shard of the number of `drawings`; arrays that exist are kept.

    drawings: with their latents, see `encode_drawings`. generated: made of `generated_rows` by `make_decodings`.
    """
    shard, random_numbers = Shard(folder, drawings.number), torch.Generator().manual_seed(drawings.number)
    latents = torch.from_numpy(drawings.array("latents").astype(np.float32))
    makers: dict[str, Callable[[], Halves]] = {
        "drawn": lambda: halve(drawings.array("images")),
        "decoded": lambda: decode_halves(vae, with_noise(latents, random_numbers)),
        "generated": lambda: halve(generated.array("images")),
        "mixed": lambda: decode_halves(vae, mixed(latents, random_numbers)),
        "doubled": lambda: draw_doubled(vae, f"doubled-{shard.number}"),
    }
    for kind, make in makers.items():
        if not shard.path(kind).exists():
            shard.save(kind, make())
            logger.info("examples: shard %d, %s", shard.number, kind)


def halve(images: NDArray[Any]) -> Halves:
    """uint8[N, 256, 256, 3] -> uint8[N, 128, 128, 3]: means of 2 x 2 pixels."""
    parts = [
        part.reshape(-1, 128, 2, 128, 2, 3).mean((2, 4)).round().astype(np.uint8)
        for part in np.array_split(images, max(1, len(images) // SAMPLED))
    ]
    return np.concatenate(parts)


def decode_halves(vae: AutoencoderKL, latents: Tensor) -> Halves:
    """Images of latents float32[N, 16, 16, 16]."""
    return np.concatenate([halve(decode(vae.decoder, part)) for part in latents.split(SAMPLED)])


def with_noise(latents: Tensor, random_numbers: torch.Generator) -> Tensor:
    """Adds noise of up to NOISE, which differs in strength from latent to latent."""
    spread = NOISE * torch.rand(len(latents), 1, 1, 1, generator=random_numbers)
    return latents + spread * torch.randn(latents.shape, generator=random_numbers)


def mixed(latents: Tensor, random_numbers: torch.Generator) -> Tensor:
    """Each latent with a share of another one: what a denoiser makes that cannot decide between two scenes."""
    low, high = SHARES
    share = low + (high - low) * torch.rand(len(latents), 1, 1, 1, generator=random_numbers)
    return torch.lerp(latents, latents.roll(1, 0), share)


def draw_doubled(vae: AutoencoderKL, dataset: str) -> Halves:
    """SHARD drawings with a thing drawn twice, encoded and decoded; scene i depends only on the dataset's name and on i."""
    from costroute_rt.export.postcard.painter import DOUBLED, DoublePainter, new_surface, render

    surface, parts, drawn, index = new_surface(), list[Halves](), list[Halves](), 0
    while len(parts) * SAMPLED < SHARD:
        rng = random.Random(f"{dataset}-{index}")
        scene, index = sample_scene(rng), index + 1
        if any(scene[name] != absent for name, (absent, _) in DOUBLED.items()):
            drawn.append(render(scene, rng, surface, DoublePainter)[0])
        if len(drawn) == SAMPLED:
            parts.append(halve(reconstruct(vae, np.stack(drawn))))
            drawn.clear()
    return np.concatenate(parts)
