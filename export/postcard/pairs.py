"""Training pairs for turbo: noise, and the latents that the teacher generates from it by guided steps for a caption.

Three quarters of the captions are short. Of those, turbo learns only from latents that the scorer approves; where the teacher fails, it
starts again from the same noise with more guidance (rejection sampling, as in RAFT, Dong et al. 2023).
"""

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizerFast

from costroute_rt.export.postcard.caption import caption
from costroute_rt.export.postcard.dataset import SHARD, shards
from costroute_rt.export.postcard.denoiser import velocity
from costroute_rt.export.postcard.networks import LATENT_CHANNELS, make_scheduler
from costroute_rt.export.postcard.scene import ATTRIBUTES, TOGETHER, Scene, sample_scene
from costroute_rt.export.postcard.scorer import Scorer, score
from costroute_rt.export.postcard.text import excludes, tokenize

logger = logging.getLogger(__name__)
GUIDANCES = (3.0, 4.5, 6.0)
"""Guidance scales of the teacher: the first one, also used in refinement; then those for latents that were not approved."""
TEACHER_STEPS = 8
SHORT = 4
"""Largest number of attributes that a short caption states."""
SHORT_SHARE = 0.75
"""Share of short captions."""
APPROVED = 0.98
"""Lowest recall of a short caption's stated things in approved latents."""
EXCLUDING_SHARE = 0.4
"""Share of the captions for a judge that must exclude something; of the others, some do. Absence is harder to learn than presence."""
UNSEEN = 3
"""Number of things that neither the caption nor its scene has, and that a judge must not find."""
BATCH = 50


@torch.no_grad()
def sample(unet: UNet2DConditionModel, states: Tensor, empty: Tensor, noise: Tensor, steps: int, guidance: float) -> Tensor:
    """Latents by guided sampling with the family's scheduler; states: float[B, 64, 160]; empty: float[1, 64, 160]."""
    scheduler, x = make_scheduler(), noise
    scheduler.set_timesteps(steps)
    both = torch.cat([empty.expand_as(states), states])
    for timestep in scheduler.timesteps:
        t = (timestep / 1000).expand(len(x)).to(x.device)
        predicted = velocity(unet, x, t, states) if guidance == 1 else guided_velocity(unet, x, t, both, guidance)
        x = scheduler.step(predicted, timestep, x).prev_sample
    return x


def guided_velocity(unet: UNet2DConditionModel, x: Tensor, t: Tensor, both: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022); x: float[B, 16, 16, 16]; t: float[B]; both: float[2 B, 64, 160], empty first."""
    unconditional, conditional = velocity(unet, torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
    return unconditional + guidance * (conditional - unconditional)


def shard_noise(shard: int) -> Tensor:
    """Noise of a shard, float32[SHARD, 16, 16, 16]; depends only on its number."""
    return torch.randn(SHARD, LATENT_CHANNELS, 16, 16, generator=torch.Generator().manual_seed(shard))


def draw_caption(short: bool, rng: random.Random) -> tuple[str, Scene]:
    """A random short or long caption, and what it states."""
    text, stated, _ = draw_scene_caption(short, rng)
    return text, stated


def draw_scene_caption(short: bool, rng: random.Random, *, excluding: bool = False) -> tuple[str, Scene, Scene]:
    """A random short or long caption, what it states, and the scene that it describes; excluding: whether it must exclude something."""
    while True:
        scene = sample_scene(rng)
        text, stated = caption(scene, rng, vague=0.04)
        if stated and (len(stated) <= SHORT) == short and (excludes(stated) or not excluding):
            return text, stated, scene


def draw_judged(short: bool, rng: random.Random) -> tuple[str, Scene]:
    """A random short or long caption, and what a judge expects in its image: what it states, and the absence of UNSEEN other things."""
    text, stated, scene = draw_scene_caption(short, rng, excluding=rng.random() < EXCLUDING_SHARE)
    lacking = [name for name in TOGETHER if name not in stated and scene[name] == ATTRIBUTES[name][0]]
    return text, {name: scene[name] for name in rng.sample(lacking, min(UNSEEN, len(lacking)))} | stated


def shard_captions(shard: int) -> list[tuple[str, Scene]]:
    """Captions of a shard and what they state; depends only on its number; SHORT_SHARE of them are short."""
    rng = random.Random(f"pairs-{shard}")
    return [draw_caption(rng.random() < SHORT_SHARE, rng) for _ in range(SHARD)]


@dataclass(frozen=True)
class Teacher:
    """Generates latents for captions, and scores how well they show what the captions state."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    tokenizer: CLIPTokenizerFast
    vae: AutoencoderKL
    scorer: Scorer

    @torch.no_grad()
    def generate(self, noise: Tensor, captions: Sequence[str], guidance: float) -> Tensor:
        """noise: float[B, 16, 16, 16] -> latents, float32 of the same shape."""
        with torch.autocast(noise.device.type, torch.bfloat16):
            empty, *states = self.text(tokenize(self.tokenizer, ["", *captions]).to(noise.device)).last_hidden_state
            return sample(self.unet, torch.stack(states), empty[None], noise, TEACHER_STEPS, guidance).float()

    @torch.no_grad()
    def scores(self, latents: Tensor, stated: Sequence[Scene]) -> Tensor:
        """Recall of stated things, float32[B] in 0..1 on the CPU; latents: float[B, 16, 16, 16]."""
        with torch.autocast(latents.device.type, torch.bfloat16):
            image = self.vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample.clamp(-1, 1).float()
        heads = {name: logits.softmax(1).tolist() for name, logits in self.scorer(image).items()}
        return torch.tensor([score({name: rows[i] for name, rows in heads.items()}, each) for i, each in enumerate(stated)])

    def generate_approved(self, noise: Tensor, captions: Sequence[tuple[str, Scene]]) -> tuple[Tensor, Tensor]:
        """Returns latents, and whether each is approved for training: bool[B], always True for a long caption."""
        latents = self.generate(noise, [text for text, _ in captions], GUIDANCES[0])
        approved = torch.ones(len(captions), dtype=torch.bool)
        remaining = [i for i, (_, stated) in enumerate(captions) if len(stated) <= SHORT]
        for guidance in (*GUIDANCES[1:], None):
            scores = self.scores(latents[remaining], [captions[i][1] for i in remaining])
            approved[remaining] = scores >= APPROVED
            remaining = [i for i in remaining if not approved[i]]
            if guidance is None or not remaining:
                return latents, approved
            latents[remaining] = self.generate(noise[remaining], [captions[i][0] for i in remaining], guidance)
        return latents, approved


def make_pairs(teacher: Teacher, folder: Path, count: int) -> None:
    """Writes shards of the teacher's latents float16[SHARD, 16, 16, 16] and of their captions, null where the latents are not approved."""
    folder.mkdir(parents=True, exist_ok=True)
    device = teacher.unet.device
    for shard in shards(folder, count):
        if shard.path("latents").exists():
            continue
        captions, noise, parts = shard_captions(shard.number), shard_noise(shard.number).to(device), []
        for first in range(0, SHARD, BATCH):
            latents, approved = teacher.generate_approved(noise[first : first + BATCH], captions[first : first + BATCH])
            parts.append((latents.half().cpu(), approved))
        is_approved = torch.cat([part for _, part in parts]).tolist()
        texts = [text if approved else None for (text, _), approved in zip(captions, is_approved, strict=True)]
        shard.path("captions", "json").write_text(json.dumps(texts))
        shard.save("latents", torch.cat([part for part, _ in parts]).numpy())
        logger.info("pairs: shard %d of %d, %d approved", shard.number + 1, -(-count // SHARD), sum(is_approved))
