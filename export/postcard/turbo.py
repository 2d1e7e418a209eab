"""Turbo: a denoiser for one to four steps without guidance, made for short captions.

It starts as a copy of the base denoiser, the student, and has three losses:
- from a teacher, the base denoiser: one step from noise must reach the latents of the teacher's guided steps, and a second step from the
  result of the student's own first step must reach them too (reflow, Liu et al. 2022, with the student's own error in the input);
- from a judge, a classifier of latents: latents generated from new noise must show what a short caption states, and must not show some
  things that it does not name (gradients go through the generation, as in DRaFT, Clark et al. 2023). The scorer that measures images is
  another network;
- from a critic, a discriminator between its latents and those of drawn scenes (adversarial diffusion distillation, Sauer et al. 2023).
  Without it the judge makes the student repeat what the caption states, such as two towers or four balloons.

Few steps cannot show a crowded scene well, and the base denoiser serves those, so the judge uses short captions only.
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
from costroute_rt.export.postcard.pairs import draw_judged, shard_noise
from costroute_rt.export.postcard.text import tokenize
from costroute_rt.export.postcard.training import Run

PAIRED, JUDGED = 48, 48
"""Numbers of pairs, and of noises with new short captions, in a batch."""
JUDGE_SHARE, CRITIC_SHARE = 0.1, 0.03
"""Weights of their losses relative to the teacher's."""
STEPS = (2, 3, 4)
"""Numbers of steps of the student, besides one; it is trained at the noise levels that these schedules visit."""


def noise_levels(steps: int) -> list[float]:
    """Noise levels in 0..1 at which the scheduler calls the denoiser."""
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    return [float(t) / 1000 for t in scheduler.timesteps]


def train_turbo(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizerFast,
    judge: LatentScorer,
    pairs: Sequence[Shard],
    data: Latents,
    path: Path,
    minutes: float,
) -> None:
    """Trains `unet`, which is a copy of the teacher; leaves averaged weights in it. A resumed run starts with a new critic."""
    unet.set_attn_processor(AttnProcessor())
    run = Run(unet, path, minutes, RATE / 2, PLAIN, flat=0.3)
    device, rng = next(unet.parameters()).device, random.Random(f"turbo-{run.steps}")
    noises, clean = [shard_noise(s.number) for s in pairs], [torch.from_numpy(s.array("latents").astype(np.float32)) for s in pairs]
    captions: list[list[str | None]] = [json.loads(s.path("captions", "json").read_text()) for s in pairs]
    usable = [(s, i, text) for s, texts in enumerate(captions) for i, text in enumerate(texts) if text is not None]
    start, later = noise_levels(1)[0], [t for steps in STEPS for t in noise_levels(steps)[1:]]
    critic = Critic().to(device, memory_format=torch.channels_last)
    ones = torch.ones(PAIRED + JUDGED, device=device)
    for _ in run:
        chosen, judged = rng.choices(usable, k=PAIRED), [draw_judged(True, rng) for _ in range(JUDGED)]
        target = torch.stack([clean[s][i] for s, i, _ in chosen]).to(device)
        noise = torch.cat([torch.stack([noises[s][i] for s, i, _ in chosen]), torch.randn(JUDGED, *target.shape[1:])]).to(device)
        texts = [each for _, _, each in chosen] + [each for each, _ in judged]
        classes = stated_targets([expected for _, expected in judged]).to(device)
        with torch.no_grad():
            states = text(tokenize(tokenizer, texts).to(device)).last_hidden_state
        second = rng.choice(later)
        first = noise - start * velocity(unet, noise, start * ones, states)
        middle = (1 - second) * first.detach() + second * noise
        again = middle - second * velocity(unet, middle, second * ones, states)
        critic.learn(data.sample(PAIRED + JUDGED, rng, device)[0], (first, again)[run.steps % 2])
        losses = []
        for x in (first, again):
            judge_loss, critic_score = judge.loss(x[PAIRED:], classes), critic(x).mean()
            losses.append(huber(x[:PAIRED] - target) + JUDGE_SHARE * judge_loss - CRITIC_SHARE * critic_score)
        run.step(torch.stack(losses).sum())
    unet.load_state_dict(run.average.state_dict())


def huber(error: Tensor, scale: float = 0.1) -> Tensor:
    """Pseudo-Huber loss, quadratic for small errors and linear for large ones, which blurs less than a squared error."""
    return ((error.square() + scale**2).sqrt() - scale).mean()
