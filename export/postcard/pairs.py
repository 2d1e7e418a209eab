"""Pairs for turbo: noise, and the latents that the teacher turns it into for a caption by guided steps.

Three in four captions are short. Of those only pictures that the scorer approves of are learnt from: where the teacher misses, it draws
the same noise again with more guidance (rejection sampling, as in RAFT, Dong et al. 2023).
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
from costroute_rt.export.postcard.scene import Scene, sample_scene
from costroute_rt.export.postcard.scorer import Scorer, score
from costroute_rt.export.postcard.text import tokenize

logger = logging.getLogger(__name__)
GUIDANCES = (3.0, 4.5, 6.0)
"""Of the teacher: the family's own, also in refining; then what a picture is tried again with that was not approved of."""
TEACHER_STEPS = 8
SHORT = 4
"""Attributes that a short caption states at most."""
SHORT_SHARE = 0.75
APPROVED = 0.98
"""Least mean probability of what a short caption states."""
BATCH = 50


@torch.no_grad()
def sample(unet: UNet2DConditionModel, states: Tensor, empty: Tensor, noise: Tensor, steps: int, guidance: float) -> Tensor:
    """Guided sampling with the family's scheduler; states: float[B, 64, 160]; empty: float[1, 64, 160]; -> latents like noise."""
    scheduler, x = make_scheduler(), noise
    scheduler.set_timesteps(steps)
    both = torch.cat([empty.expand_as(states), states])
    for timestep in scheduler.timesteps:
        t = (timestep / 1000).expand(len(x)).to(x.device)
        found = velocity(unet, x, t, states) if guidance == 1 else guided_velocity(unet, x, t, both, guidance)
        x = scheduler.step(found, timestep, x).prev_sample
    return x


def guided_velocity(unet: UNet2DConditionModel, x: Tensor, t: Tensor, both: Tensor, guidance: float) -> Tensor:
    """By classifier-free guidance (Ho and Salimans 2022); x: float[B, 16, 16, 16]; t: float[B]; both: float[2 B, 64, 160], empty first."""
    free, stated = velocity(unet, torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
    return free + guidance * (stated - free)


def noise_of(shard: int) -> Tensor:
    """float32[SHARD, 16, 16, 16], the same for the same number."""
    return torch.randn(SHARD, LATENT_CHANNELS, 16, 16, generator=torch.Generator().manual_seed(shard))


def stating(short: bool, rng: random.Random) -> tuple[str, Scene]:
    """A short or a long caption, and what it states."""
    while True:
        text, stated = caption(sample_scene(rng), rng, vague=0.04)
        if stated and (len(stated) <= SHORT) == short:
            return text, stated


def captions_of(shard: int) -> list[tuple[str, Scene]]:
    """SHARD captions and what they state, the same for the same number; SHORT_SHARE of them are short."""
    rng = random.Random(f"pairs-{shard}")
    return [stating(rng.random() < SHORT_SHARE, rng) for _ in range(SHARD)]


@dataclass(frozen=True)
class Teacher:
    """Draws latents for captions, and tells how well they show what a caption states."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    tokenizer: CLIPTokenizerFast
    vae: AutoencoderKL
    scorer: Scorer

    @torch.no_grad()
    def draw(self, noise: Tensor, captions: Sequence[str], guidance: float) -> Tensor:
        """noise: float[B, 16, 16, 16] -> latents float32 like it."""
        with torch.autocast(noise.device.type, torch.bfloat16):
            empty, *states = self.text(tokenize(self.tokenizer, ["", *captions]).to(noise.device)).last_hidden_state
            return sample(self.unet, torch.stack(states), empty[None], noise, TEACHER_STEPS, guidance).float()

    @torch.no_grad()
    def scores(self, latents: Tensor, stated: Sequence[Scene]) -> Tensor:
        """latents: float[B, 16, 16, 16] -> float32[B], 0..1, on the CPU."""
        with torch.autocast(latents.device.type, torch.bfloat16):
            image = self.vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample.clamp(-1, 1).float()
        heads = {name: logits.softmax(1).tolist() for name, logits in self.scorer(image).items()}
        return torch.tensor([score({name: rows[i] for name, rows in heads.items()}, asked) for i, asked in enumerate(stated)])

    def approved(self, noise: Tensor, captions: Sequence[tuple[str, Scene]]) -> tuple[Tensor, Tensor]:
        """-> (latents, whether each is fit to learn from: bool[B], always where the caption is long)."""
        latents = self.draw(noise, [text for text, _ in captions], GUIDANCES[0])
        good = torch.ones(len(captions), dtype=torch.bool)
        waiting = [i for i, (_, stated) in enumerate(captions) if len(stated) <= SHORT]
        for guidance in (*GUIDANCES[1:], None):
            found = self.scores(latents[waiting], [captions[i][1] for i in waiting])
            good[waiting] = found >= APPROVED
            waiting = [i for i in waiting if not good[i]]
            if guidance is None or not waiting:
                return latents, good
            latents[waiting] = self.draw(noise[waiting], [captions[i][0] for i in waiting], guidance)
        return latents, good


def make_pairs(teacher: Teacher, folder: Path, count: int) -> None:
    """Writes the teacher's latents float16[SHARD, 16, 16, 16] and the captions of those fit to learn from (null elsewhere), by shards."""
    folder.mkdir(parents=True, exist_ok=True)
    device = teacher.unet.device
    for shard in shards(folder, count):
        if shard.path("latents").exists():
            continue
        captions, noise, parts = captions_of(shard.number), noise_of(shard.number).to(device), []
        for first in range(0, SHARD, BATCH):
            latents, good = teacher.approved(noise[first : first + BATCH], captions[first : first + BATCH])
            parts.append((latents.half().cpu(), good))
        good = torch.cat([part for _, part in parts]).tolist()
        texts = [text if fit else None for (text, _), fit in zip(captions, good, strict=True)]
        shard.path("captions", "json").write_text(json.dumps(texts))
        shard.save("latents", torch.cat([part for part, _ in parts]).numpy())
        logger.info("pairs: shard %d of %d, %d fit to learn from", shard.number + 1, -(-count // SHARD), sum(good))
