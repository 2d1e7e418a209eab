"""Turbo: a denoiser for one or two steps, distilled from the base denoiser with guidance folded in.

The teacher turns noise into latents by guided steps; the pairs (noise, latent, caption) are kept, and the student learns to go from the
noise to the latent in one step, and from where its own first step leads to the latent in a second (rectified flow's reflow, Liu et al.
2022, with the student's own error in its input).
"""

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizerFast

from costroute_rt.export.postcard.caption import caption
from costroute_rt.export.postcard.dataset import SHARD, Shard, shards
from costroute_rt.export.postcard.denoiser import PLAIN, RATE, velocity
from costroute_rt.export.postcard.networks import LATENT_CHANNELS, make_scheduler
from costroute_rt.export.postcard.scene import sample_scene
from costroute_rt.export.postcard.text import tokenize
from costroute_rt.export.postcard.training import Run

logger = logging.getLogger(__name__)
GUIDANCE = 3.0
TEACHER_STEPS = 8
BATCH = 96


@torch.no_grad()
def sample(unet: UNet2DConditionModel, states: Tensor, empty: Tensor, noise: Tensor, steps: int, guidance: float) -> Tensor:
    """Guided sampling with the family's scheduler; states: float[B, 64, 160]; empty: float[1, 64, 160]; -> latents like noise."""
    scheduler, x = make_scheduler(), noise
    scheduler.set_timesteps(steps)
    both = torch.cat([empty.expand_as(states), states])
    for timestep in scheduler.timesteps:
        t = (timestep / 1000).expand(len(x)).to(x.device)
        if guidance == 1:
            found = velocity(unet, x, t, states)
        else:
            free, stated = velocity(unet, torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
            found = free + guidance * (stated - free)
        x = scheduler.step(found, timestep, x).prev_sample
    return x


def noise_of(shard: int) -> Tensor:
    """float32[SHARD, 16, 16, 16], the same for the same number."""
    return torch.randn(SHARD, LATENT_CHANNELS, 16, 16, generator=torch.Generator().manual_seed(shard))


@torch.no_grad()
def make_pairs(teacher: UNet2DConditionModel, text: CLIPTextModel, tokenizer: CLIPTokenizerFast, folder: Path, count: int) -> None:
    """Writes the teacher's latents float16[SHARD, 16, 16, 16] and their captions, shard by shard."""
    folder.mkdir(parents=True, exist_ok=True)
    device = next(teacher.parameters()).device
    empty = text(tokenize(tokenizer, [""]).to(device)).last_hidden_state
    for shard in shards(folder, count):
        if shard.path("latents").exists():
            continue
        rng, noise, parts = random.Random(f"pairs-{shard.number}"), noise_of(shard.number).to(device), []
        texts = [caption(sample_scene(rng), rng, vague=0.04)[0] for _ in range(SHARD)]
        for first in range(0, SHARD, 50):
            with torch.autocast(device.type, torch.bfloat16):
                states = text(tokenize(tokenizer, texts[first : first + 50]).to(device)).last_hidden_state
                parts.append(sample(teacher, states, empty, noise[first : first + 50], TEACHER_STEPS, GUIDANCE).float().cpu())
        shard.path("captions", "json").write_text(json.dumps(texts))
        shard.save("latents", torch.cat(parts).half().numpy())
        logger.info("pairs: shard %d of %d", shard.number + 1, -(-count // SHARD))


def times(steps: int) -> list[float]:
    """Noise levels 0..1 at which the scheduler calls the denoiser."""
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    return [float(t) / 1000 for t in scheduler.timesteps]


def train_turbo(
    unet: UNet2DConditionModel, text: CLIPTextModel, tokenizer: CLIPTokenizerFast, pairs: Sequence[Shard], path: Path, minutes: float
) -> None:
    """unet: starts as a copy of the teacher; leaves averaged weights in it."""
    unet.set_attn_processor(AttnProcessor())
    run = Run(unet, path, minutes, RATE / 2, PLAIN, flat=0.3)
    device, rng = next(unet.parameters()).device, random.Random(f"turbo-{run.steps}")
    noises, clean = [noise_of(s.number) for s in pairs], [torch.from_numpy(s.array("latents").astype(np.float32)) for s in pairs]
    captions: list[list[str]] = [json.loads(s.path("captions", "json").read_text()) for s in pairs]
    start, second = times(2)
    for _ in run:
        chosen = [(rng.randrange(len(pairs)), rng.randrange(SHARD)) for _ in range(BATCH)]
        noise = torch.stack([noises[s][i] for s, i in chosen]).to(device)
        target = torch.stack([clean[s][i] for s, i in chosen]).to(device)
        with torch.no_grad():
            states = text(tokenize(tokenizer, [captions[s][i] for s, i in chosen]).to(device)).last_hidden_state
        ones = torch.ones(BATCH, device=device)
        first = noise - start * velocity(unet, noise, start * ones, states)
        middle = (1 - second) * first.detach() + second * noise
        again = middle - second * velocity(unet, middle, second * ones, states)
        run.step(huber(first - target) + huber(again - target))
    unet.load_state_dict(run.average.state_dict())


def huber(error: Tensor, scale: float = 0.1) -> Tensor:
    """Pseudo-Huber: squares small errors and takes large ones as they are, which blurs less than squares alone."""
    return ((error.square() + scale**2).sqrt() - scale).mean()
