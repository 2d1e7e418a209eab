"""A classifier of scene attributes in latents, from which turbo and the refined base learn.

The scorer that measures images is another network with other input and other training scenes, so that a denoiser that merely exploits the
weaknesses of this one does not gain in the measurements.
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
from costroute_rt.export.postcard.scorer import Block, downsample, scene_classes
from costroute_rt.export.postcard.text import stated_classes
from costroute_rt.export.postcard.training import Run

WIDTHS = (96, 128, 160)
BATCH = 96
HELD_OUT = 1000
NOISE = 0.5
"""Largest standard deviation of noise added to latents (which have unit variance), so that it looks at things and not at artefacts."""
PLAIN = ("heads", "layers.0.")
"""Layers trained by AdamW, see Optimizer."""


class LatentScorer(nn.Module):
    """latents float[B, 16, 16, 16] -> logits float[B, values] of each attribute, in the order of ATTRIBUTES."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        first = nn.Sequential(nn.Conv2d(LATENT_CHANNELS, a, 3, padding=1), Block(a))
        self.layers = nn.Sequential(first, downsample(a, b), Block(b), downsample(b, c), Block(c), nn.Conv2d(c, 48, 1))
        self.join = nn.Linear(48 * 16, 320)
        self.heads = nn.ModuleList(nn.Linear(320, len(values)) for values in ATTRIBUTES.values())

    def forward(self, latents: Tensor) -> list[Tensor]:
        joined = F.relu(self.join(F.relu(self.layers(latents.contiguous(memory_format=torch.channels_last))).flatten(1)))
        return [head(joined).float() for head in self.heads]

    def loss(self, latents: Tensor, classes: Tensor) -> Tensor:
        """Mean cross-entropy of the stated attributes; classes: int64[B, attributes], -1 where an attribute is not stated."""
        heads = self(noisy(latents, NOISE))
        losses = [F.cross_entropy(logits, classes[:, i], ignore_index=-1, reduction="sum") for i, logits in enumerate(heads)]
        return torch.stack(losses).sum() / (classes >= 0).sum().clamp(min=1)


def noisy(latents: Tensor, largest: float) -> Tensor:
    """Adds noise of a random standard deviation, up to `largest`, to each latent."""
    spread = largest * torch.rand(len(latents), 1, 1, 1, device=latents.device)
    return latents + spread * torch.randn_like(latents)


def train_latent_scorer(scorer: LatentScorer, data: Latents, path: Path, minutes: float) -> float:
    """Leaves averaged weights in `scorer`, in evaluation mode; returns its accuracy on the last HELD_OUT scenes."""
    run, device = Run(scorer, path, minutes, 1.5e-3, PLAIN, flat=0.3), next(scorer.parameters()).device
    rng = random.Random(f"latent-scorer-{run.steps}")
    classes = scene_classes(data.scenes)
    for _ in run:
        index = [rng.randrange(len(classes) - HELD_OUT) for _ in range(BATCH)]
        run.step(scorer.loss(torch.from_numpy(data.latents[index]).to(device).float(), classes[index].to(device)))
    scorer.load_state_dict(run.average.state_dict())
    scorer.eval().requires_grad_(False)
    heads = scorer(torch.from_numpy(data.latents[-HELD_OUT:]).to(device).float())
    correct = [logits.argmax(1).cpu() == classes[-HELD_OUT:, i] for i, logits in enumerate(heads)]
    return float(torch.stack(correct).float().mean())


def stated_targets(stated: Sequence[Scene]) -> Tensor:
    """Classes that captions state or a judge expects, int64[N, attributes]; -1 where an attribute is not stated."""
    return torch.tensor([stated_classes(each) for each in stated]) - 1
