"""The base denoiser's last lessons: a judge looks at what it draws for captions, mostly long ones.

Beside the loss it was trained with, on drawn scenes, it draws from new noise by guided steps as it does in use, stops at one of them, and
the scorer of latents says how much of what the caption states is in the clean latents it expects there (as in ReFL, Xu et al. 2023). The
gradient goes through that one step, with its guidance.

After this training it draws some of what was asked for twice, two castles and three balloons. So the weights that are kept lie between
those it began with and those it ended with (as in WiSE-FT, Wortsman et al. 2022): they show as much of a caption, and fewer things twice.
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
from costroute_rt.export.postcard.pairs import GUIDANCES, TEACHER_STEPS, guided_velocity, stating
from costroute_rt.export.postcard.text import make_captions, tokenize
from costroute_rt.export.postcard.training import Run

DRAWN, JUDGED = 64, 32
"""Drawn scenes, and noise with new captions, in a batch."""
LONG_SHARE = 0.75
"""Of those captions: they state more than pairs.SHORT attributes."""
FIRST_JUDGED = 2
"""Step at which a picture is far enough to be judged."""
JUDGE_SHARE = 0.3
"""Weight of the judge's loss beside the flow's."""
KEPT = 0.6
"""Share of the way from the weights it began with to those it ended with."""


def refine_base(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizerFast,
    judge: LatentScorer,
    data: Latents,
    path: Path,
    minutes: float,
) -> None:
    """unet: the trained base denoiser; leaves weights in it that lie KEPT of the way to its averaged ones."""
    began = {name: value.clone() for name, value in unet.state_dict().items()}
    unet.set_attn_processor(AttnProcessor())
    run = Run(unet, path, minutes, RATE / 4, PLAIN, flat=0.3)
    device, rng = next(unet.parameters()).device, random.Random(f"refine-{run.steps}")
    with torch.no_grad():
        empty = text(tokenize(tokenizer, [""]).to(device)).last_hidden_state
    for _ in run:
        x, masks, scenes = data.draw(DRAWN, rng, device)
        texts, _ = make_captions(scenes, rng, DROP_CAPTION, VAGUE)
        asked = [stating(rng.random() >= LONG_SHARE, rng) for _ in range(JUDGED)]
        with torch.no_grad():
            states = text(tokenize(tokenizer, texts + [each for each, _ in asked]).to(device)).last_hidden_state
        noise, steps = torch.randn(JUDGED, *x.shape[1:], device=device), rng.randrange(FIRST_JUDGED, TEACHER_STEPS)
        clean = expected(unet, states[DRAWN:], empty, noise, steps)
        told = judge.loss(clean, stated_targets([stated for _, stated in asked]).to(device))
        run.step(flow_loss(unet, x, masks, states[:DRAWN]) + JUDGE_SHARE * told)
    ended = run.average.state_dict()
    unet.load_state_dict({name: torch.lerp(value, ended[name], KEPT) for name, value in began.items()})


def expected(unet: UNet2DConditionModel, states: Tensor, empty: Tensor, noise: Tensor, steps: int) -> Tensor:
    """The clean latents float[B, 16, 16, 16] that `unet` expects after `steps` of TEACHER_STEPS guided steps from `noise`, like them.

    Those steps have no gradient, the call that follows has one. states: float[B, 64, 160]; empty: float[1, 64, 160]; steps: below
    TEACHER_STEPS.
    """
    scheduler, x, both = make_scheduler(), noise, torch.cat([empty.expand_as(states), states])
    scheduler.set_timesteps(TEACHER_STEPS)
    times = (scheduler.timesteps[:, None] / 1000).expand(-1, len(x)).to(x.device)
    with torch.no_grad():
        for timestep, t in zip(scheduler.timesteps[:steps], times, strict=False):
            x = scheduler.step(guided_velocity(unet, x, t, both, GUIDANCES[0]), timestep, x).prev_sample
    return x - scheduler.sigmas[steps] * guided_velocity(unet, x, times[steps], both, GUIDANCES[0])
