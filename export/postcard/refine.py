"""Refinement of the base denoiser with a reward: the latent scorer's judgement of latents for captions, most of them long.

In addition to the flow loss on drawn scenes, the denoiser starts from new noise, runs guided steps as in use, and stops at a random one.
The latent scorer's loss on the clean latents predicted there measures how much of the caption is missing (as in ReFL, Xu et al. 2023). The
gradient goes through that one step, with its guidance.

The judge sees neither blur nor doubles: while it takes part, images lose their clean edges, and some requested things appear twice. In the
second part of the time the denoiser therefore learns from drawn scenes alone. That makes images cleaner than before the refinement, and
they keep much of what the judge taught, above all to leave out what a caption excludes.
"""

import random
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizerFast

from costroute_rt.export.postcard.denoiser import DROP_CAPTION, PLAIN, RATE, VAGUE, Latents, flow_loss
from costroute_rt.export.postcard.latent_scorer import LatentScorer, stated_targets
from costroute_rt.export.postcard.networks import make_scheduler
from costroute_rt.export.postcard.pairs import GUIDANCES, TEACHER_STEPS, draw_judged, guided_velocity
from costroute_rt.export.postcard.text import make_captions, tokenize
from costroute_rt.export.postcard.training import Run

DRAWN, JUDGED = 64, 32
"""Numbers of drawn scenes, and of noises with new captions, in a batch."""
LONG_SHARE = 0.75
"""Share of long ones among the new captions; a long caption states more than pairs.SHORT attributes."""
FIRST_JUDGED = 2
"""Earliest step whose predicted clean latents are good enough to be judged."""
JUDGE_SHARE = 0.3
"""Weight of the judge's loss relative to the flow loss."""
JUDGED_TIME = 0.6
"""Share of the time in which the judge takes part."""


def refine_base(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizerFast,
    judge: LatentScorer,
    data: Latents,
    path: Path,
    minutes: float,
) -> None:
    """Refines the trained base denoiser `unet`; leaves averaged weights in it."""
    unet.set_attn_processor(AttnProcessor())
    run = Run(unet, path, minutes, RATE / 4, PLAIN, flat=0.3)
    device, rng = next(unet.parameters()).device, random.Random(f"refine-{run.steps}")
    with torch.no_grad():
        empty = text(tokenize(tokenizer, [""]).to(device)).last_hidden_state
    for done in run:
        x, masks, scenes = data.sample(DRAWN, rng, device)
        texts, _ = make_captions(scenes, rng, DROP_CAPTION, VAGUE)
        judged = [draw_judged(rng.random() >= LONG_SHARE, rng) for _ in range(JUDGED if done < JUDGED_TIME else 0)]
        with torch.no_grad():
            states = text(tokenize(tokenizer, texts + [each for each, _ in judged]).to(device)).last_hidden_state
        loss = flow_loss(unet, x, masks, states[:DRAWN])
        if judged:
            noise, steps = torch.randn(JUDGED, *x.shape[1:], device=device), rng.randrange(FIRST_JUDGED, TEACHER_STEPS)
            clean = predicted_clean(unet, states[DRAWN:], empty, noise, steps)
            loss = loss + JUDGE_SHARE * judge.loss(clean, stated_targets([expected for _, expected in judged]).to(device))
        run.step(loss)
    unet.load_state_dict(run.average.state_dict())


def predicted_clean(unet: UNet2DConditionModel, states: Tensor, empty: Tensor, noise: Tensor, steps: int) -> Tensor:
    """The clean latents float[B, 16, 16, 16] that `unet` predicts after `steps` of TEACHER_STEPS guided steps from `noise`.

    The steps have no gradient, only the final prediction has one. states: float[B, 64, 160]; empty: float[1, 64, 160]; steps: below
    TEACHER_STEPS.
    """
    scheduler, x, both = make_scheduler(), noise, torch.cat([empty.expand_as(states), states])
    scheduler.set_timesteps(TEACHER_STEPS)
    times = (scheduler.timesteps[:, None] / 1000).expand(-1, len(x)).to(x.device)
    with torch.no_grad():
        for timestep, t in zip(scheduler.timesteps[:steps], times, strict=False):
            x = scheduler.step(guided_velocity(unet, x, t, both, GUIDANCES[0]), timestep, x).prev_sample
    return x - scheduler.sigmas[steps] * guided_velocity(unet, x, times[steps], both, GUIDANCES[0])
