"""Turbo: a denoiser for one to four steps without guidance, made for short captions.

It starts as a copy of the base denoiser and learns from three:
- a teacher, the base denoiser: from noise to the latent that the teacher's guided steps lead to in one step, and from where its own first
  step leads to the same in one more (rectified flow's reflow, Liu et al. 2022, with the student's own error in its input);
- a judge, a classifier of latents: what a short caption states is to be found in what it draws for new noise (gradients through the
  drawing, as in DRaFT, Clark et al. 2023). The scorer that pictures are measured with is another network;
- a critic, which learns to tell its latents from those of drawn scenes (adversarial diffusion distillation, Sauer et al. 2023). Without it
  the judge gets what was asked for many times over, two towers and four balloons.

A crowded scene cannot be drawn well in few steps, and there is the base denoiser for it, so the judge asks for short captions only.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizerFast

from costroute_rt.export.postcard.critic import Critic
from costroute_rt.export.postcard.dataset import Shard
from costroute_rt.export.postcard.denoiser import PLAIN, RATE, Latents, velocity
from costroute_rt.export.postcard.latent_scorer import LatentScorer, stated_targets
from costroute_rt.export.postcard.networks import make_scheduler
from costroute_rt.export.postcard.pairs import noise_of, stating
from costroute_rt.export.postcard.text import tokenize
from costroute_rt.export.postcard.training import Run

PAIRED, JUDGED = 48, 48
"""Pairs, and noise with new short captions, in a batch."""
JUDGE_SHARE, CRITIC_SHARE = 0.1, 0.03
STEPS = (2, 3, 4)
"""The student is used with one step and with these; it learns at the noise levels they pass through."""


def times(steps: int) -> list[float]:
    """Noise levels 0..1 at which the scheduler calls the denoiser."""
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    return [float(t) / 1000 for t in scheduler.timesteps]


def train_turbo(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizerFast,
    judge: LatentScorer,
    pairs: Sequence[Shard],
    drawn: Latents,
    path: Path,
    minutes: float,
) -> None:
    """unet: starts as a copy of the teacher; leaves averaged weights in it. A run that goes on after a stop has a new critic."""
    unet.set_attn_processor(AttnProcessor())
    run = Run(unet, path, minutes, RATE / 2, PLAIN, flat=0.3)
    device, rng = next(unet.parameters()).device, random.Random(f"turbo-{run.steps}")
    noises, clean = [noise_of(s.number) for s in pairs], [torch.from_numpy(s.array("latents").astype(np.float32)) for s in pairs]
    captions: list[list[str | None]] = [json.loads(s.path("captions", "json").read_text()) for s in pairs]
    usable = [(s, i, text) for s, texts in enumerate(captions) for i, text in enumerate(texts) if text is not None]
    start, later = times(1)[0], [t for steps in STEPS for t in times(steps)[1:]]
    critic = Critic().to(device, memory_format=torch.channels_last)
    ones = torch.ones(PAIRED + JUDGED, device=device)
    for _ in run:
        chosen, asked = rng.choices(usable, k=PAIRED), [stating(True, rng) for _ in range(JUDGED)]
        target = torch.stack([clean[s][i] for s, i, _ in chosen]).to(device)
        noise = torch.cat([torch.stack([noises[s][i] for s, i, _ in chosen]), torch.randn(JUDGED, *target.shape[1:])]).to(device)
        texts = [each for _, _, each in chosen] + [each for each, _ in asked]
        wanted = stated_targets([stated for _, stated in asked]).to(device)
        with torch.no_grad():
            states = text(tokenize(tokenizer, texts).to(device)).last_hidden_state
        second = rng.choice(later)
        first = noise - start * velocity(unet, noise, start * ones, states)
        middle = (1 - second) * first.detach() + second * noise
        again = middle - second * velocity(unet, middle, second * ones, states)
        critic.learn(drawn.draw(PAIRED + JUDGED, rng, device)[0], (first, again)[run.steps % 2])
        losses = []
        for x in (first, again):
            told, look = judge.loss(x[PAIRED:], wanted), critic(x).mean()
            losses.append(huber(x[:PAIRED] - target) + JUDGE_SHARE * told - CRITIC_SHARE * look)
        run.step(torch.stack(losses).sum())
    unet.load_state_dict(run.average.state_dict())


def huber(error: Tensor, scale: float = 0.1) -> Tensor:
    """Pseudo-Huber: squares small errors and takes large ones as they are, which blurs less than squares alone."""
    return ((error.square() + scale**2).sqrt() - scale).mean()
