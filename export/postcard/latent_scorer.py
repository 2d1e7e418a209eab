"""A classifier of scene attributes that looks at latents: what turbo and the refined base learn from.

It is not the scorer that judges pictures: other weights, another input, trained on other scenes. A student that only learned to please
this one gains nothing there.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from costroute_rt.export.postcard.denoiser import Latents
from costroute_rt.export.postcard.networks import LATENT_CHANNELS
from costroute_rt.export.postcard.scene import ATTRIBUTES, Scene
from costroute_rt.export.postcard.scorer import Block, halve, targets
from costroute_rt.export.postcard.text import stated_classes
from costroute_rt.export.postcard.training import Run

WIDTHS = (96, 128, 160)
BATCH = 96
HELD_OUT = 1000
NOISE = 0.5
"""Largest spread of the noise added to latents (they have unit variance), so that it sees things and not traces."""
PLAIN = ("heads", "layers.0.")


class LatentScorer(nn.Module):
    """latents float[B, 16, 16, 16] -> per attribute, in the order of ATTRIBUTES, its logits float[B, values]."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        first = nn.Sequential(nn.Conv2d(LATENT_CHANNELS, a, 3, padding=1), Block(a))
        self.layers = nn.Sequential(first, halve(a, b), Block(b), halve(b, c), Block(c), nn.Conv2d(c, 48, 1))
        self.join = nn.Linear(48 * 16, 320)
        self.heads = nn.ModuleList(nn.Linear(320, len(values)) for values in ATTRIBUTES.values())

    def forward(self, latents: Tensor) -> list[Tensor]:
        joined = F.relu(self.join(F.relu(self.layers(latents.contiguous(memory_format=torch.channels_last))).flatten(1)))
        return [head(joined).float() for head in self.heads]

    def loss(self, latents: Tensor, wanted: Tensor) -> Tensor:
        """Mean cross-entropy of what is stated; wanted: int64[B, attributes], -1 where nothing is."""
        found = self(noisy(latents, NOISE))
        losses = [F.cross_entropy(logits, wanted[:, i], ignore_index=-1, reduction="sum") for i, logits in enumerate(found)]
        return torch.stack(losses).sum() / (wanted >= 0).sum().clamp(min=1)


def noisy(latents: Tensor, most: float) -> Tensor:
    """With noise of a random spread, up to `most`."""
    spread = most * torch.rand(len(latents), 1, 1, 1, device=latents.device)
    return latents + spread * torch.randn_like(latents)


def train_latent_scorer(scorer: LatentScorer, data: Latents, path: Path, minutes: float) -> float:
    """Leaves averaged weights in `scorer`, in evaluation mode; -> share of right answers on the last HELD_OUT scenes."""
    run, device = Run(scorer, path, minutes, 1.5e-3, PLAIN, flat=0.3), next(scorer.parameters()).device
    rng = random.Random(f"latent-scorer-{run.steps}")
    wanted = targets(data.scenes)
    for _ in run:
        index = [rng.randrange(len(wanted) - HELD_OUT) for _ in range(BATCH)]
        run.step(scorer.loss(torch.from_numpy(data.latents[index]).to(device).float(), wanted[index].to(device)))
    scorer.load_state_dict(run.average.state_dict())
    scorer.eval().requires_grad_(False)
    found = scorer(torch.from_numpy(data.latents[-HELD_OUT:]).to(device).float())
    right = [logits.argmax(1).cpu() == wanted[-HELD_OUT:, i] for i, logits in enumerate(found)]
    return float(torch.stack(right).float().mean())


def stated_targets(stated: Sequence[Scene]) -> Tensor:
    """int64[N, attributes], -1 for what a caption does not state."""
    return torch.tensor([stated_classes(each) for each in stated]) - 1
