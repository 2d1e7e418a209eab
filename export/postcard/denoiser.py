"""Training of denoisers by rectified flow on latents of drawn scenes.

Training point: x = (1 - t) * data + t * noise at t in 0..1; the network predicts the velocity noise - data (Liu et al. 2022), which is
diffusers' `flow_prediction` with sigma = t and timestep = 1000 t.
"""

import logging
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizerFast

from costroute_rt.export.postcard.autoencoder import encode, to_float
from costroute_rt.export.postcard.dataset import render_dataset, shards
from costroute_rt.export.postcard.scene import Scene, sample_scene
from costroute_rt.export.postcard.text import PLAIN as TEXT_PLAIN
from costroute_rt.export.postcard.text import AttributeHeads, make_captions, tokenize, unpadded
from costroute_rt.export.postcard.training import Run

logger = logging.getLogger(__name__)
TIMESTEPS = 1000
DROP_CAPTION = 0.1
"""Share of captions replaced by the empty text, for classifier-free guidance."""
VAGUE = 0.08
"""Share of houses, boats, trees and mountains named without their colour or kind."""
NOISE_SHIFT = 0.5
"""Mean of the logit of the training time; above 0 means more noise than data."""
READ = 96
"""Captions in a batch from which only the text encoder learns, by its attribute heads."""
HEADS_SHARE, READING_SHARE = 0.1, 0.5
"""Weights of the heads' losses on captions with and without an image, relative to the flow loss."""
PLAIN = ("conv_in", "conv_out", *TEXT_PLAIN)
RATE, CONTINUED_RATE = 1.2e-3, 4e-4
"""Peak learning rates of new weights and of trained ones."""


@torch.no_grad()
def encode_dataset(vae: AutoencoderKL, folder: Path, count: int, processes: int) -> None:
    """Draws `count` scenes and keeps their latents float16[SHARD, 16, 16, 16] instead of the images."""
    device = next(vae.parameters()).device
    missing = [s for s in shards(folder, count) if not s.path("latents").exists()]
    for shard in render_dataset(folder, "scenes", count, processes) if missing else ():
        if shard.path("latents").exists():
            continue
        parts = []
        for rows in np.array_split(shard.array("images"), 25):
            with torch.autocast(device.type, torch.bfloat16):
                parts.append(encode(vae, to_float(rows, device)).half().cpu().numpy())
        shard.save("latents", np.concatenate(parts))
        shard.path("images").unlink()
        logger.info("encoded shard %d of %d", shard.number + 1, -(-count // len(shard.scenes())))


class Latents:
    """Latents, object masks and scenes of a dataset, held in memory."""

    def __init__(self, folder: Path, count: int) -> None:
        parts = [s for s in shards(folder, count) if s.path("latents").exists()]
        self.latents: NDArray[np.float16] = np.concatenate([s.array("latents") for s in parts])
        self.masks: NDArray[np.uint8] = np.concatenate([s.array("masks") for s in parts])
        self.scenes: list[Scene] = [scene for s in parts for scene in s.scenes()]

    def sample(self, count: int, rng: random.Random, device: torch.device) -> tuple[Tensor, Tensor, list[Scene]]:
        """Random rows: (latents float[B, 16, 16, 16], masks uint8[B, 16, 16], scenes)."""
        index = [rng.randrange(len(self.scenes)) for _ in range(count)]
        latents = torch.from_numpy(self.latents[index]).to(device).float()
        return latents, torch.from_numpy(self.masks[index]).to(device), [self.scenes[i] for i in index]


def object_weight(masks: Tensor, t: Tensor) -> Tensor:
    """Object masks uint8[B, 16, 16] and times float[B] -> float[B, 1, 16, 16]: up to 3 inside objects, 1 outside.

    The weight falls to 1 with rising noise. At high noise the position of an object is still open, and weighting it there makes the
    denoiser draw it in several places (two suns, two houses).
    """
    clarity = (1 - t / 0.7).clamp(min=0)[:, None, None, None]
    return 1 + 2 * clarity * masks.float().div(255)[:, None]


def velocity(unet: UNet2DConditionModel, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
    """The predicted velocity; x: float[B, 16, 16, 16]; t: float[B], 1 is noise; states: float[B, 64, 160]."""
    return unet(x.contiguous(memory_format=torch.channels_last), t * TIMESTEPS, states).sample.float()


def flow_loss(unet: UNet2DConditionModel, latents: Tensor, masks: Tensor, states: Tensor) -> Tensor:
    """Squared error of the velocity at random times, weighted by objects; latents: float[B, 16, 16, 16]; masks: uint8[B, 16, 16]."""
    noise, t = torch.randn_like(latents), torch.sigmoid(torch.randn(len(latents), device=latents.device) + NOISE_SHIFT)
    predicted = velocity(unet, torch.lerp(latents, noise, t[:, None, None, None]), t, states)
    weight = object_weight(masks, t)
    return ((predicted - (noise - latents)).square() * (weight / weight.mean())).mean()


def train_denoiser(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    heads: AttributeHeads | None,
    tokenizer: CLIPTokenizerFast,
    data: Latents,
    path: Path,
    minutes: float,
    batch: int = 96,
    rate: float = RATE,
) -> None:
    """Trains `unet`, together with the text encoder if its attribute heads are given; leaves averaged weights in them.

    Without heads the text encoder stays as it is.

    rate: peak learning rate; a smaller one continues the training of weights that are good already.
    """
    parts = nn.ModuleDict({"unet": unet} if heads is None else {"unet": unet, "text": text, "heads": heads})
    run = Run(parts, path, minutes, rate, PLAIN)
    device, rng = next(unet.parameters()).device, random.Random(f"{path.stem}-{run.steps}")
    for _ in run:
        x, masks, scenes = data.sample(batch, rng, device)
        texts, classes = make_captions(scenes, rng, DROP_CAPTION, VAGUE)
        with torch.set_grad_enabled(heads is not None):
            encoded = text(tokenize(tokenizer, texts).to(device))
        loss = flow_loss(unet, x, masks, encoded.last_hidden_state)
        if heads is not None:
            loss = loss + HEADS_SHARE * heads.loss(encoded.pooler_output, classes.to(device))
            texts, classes = make_captions([sample_scene(rng) for _ in range(READ)], rng, 0.0, VAGUE)
            pooled = text(unpadded(texts, tokenizer).to(device)).pooler_output
            loss = loss + READING_SHARE * heads.loss(pooled, classes.to(device))
        run.step(loss)
    parts.load_state_dict(run.average.state_dict())
