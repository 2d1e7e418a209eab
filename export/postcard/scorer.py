"""The scorer: a classifier of all scene attributes, which measures how much of what a caption states is in an image.

It is trained on drawn postcards only. It recognises whether things are present, not whether the image is beautiful.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from costroute_rt.export.postcard.autoencoder import to_float
from costroute_rt.export.postcard.dataset import Shard
from costroute_rt.export.postcard.scene import ATTRIBUTES, Scene, Value
from costroute_rt.export.postcard.training import Run

logger = logging.getLogger(__name__)
WIDTHS = (24, 48, 96, 144)
BATCH = 48
PLAIN = ("heads", "layers.0.0.")
"""Layers trained by AdamW, see Optimizer."""


class Block(nn.Module):
    """A residual block, float[B, C, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


def downsample(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution with stride 2, batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Scorer(nn.Module):
    """image float[B, 3, 256, 256] in -1..1 -> logits float[B, values] of each attribute.

    It looks at the image reduced to 64 x 64 pixels, where a generated image is as sharp as a drawing.
    """

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        levels = [part for i, o in ((3, a), (a, b), (b, c), (c, d)) for part in (downsample(i, o), Block(o))]
        self.layers = nn.Sequential(*levels, nn.Conv2d(d, 48, 1))
        self.join = nn.Linear(48 * 16, 320)
        self.heads = nn.ModuleList(nn.Linear(320, len(values)) for values in ATTRIBUTES.values())

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return dict(zip(ATTRIBUTES, self.logits(F.avg_pool2d(image, 4)), strict=True))

    def logits(self, small: Tensor) -> list[Tensor]:
        """Logits in the order of ATTRIBUTES; small: float[B, 3, 64, 64]."""
        joined = F.relu(self.join(F.relu(self.layers(small)).flatten(1)))
        return [head(joined) for head in self.heads]


def scene_classes(scenes: Sequence[Scene]) -> Tensor:
    """The class of every attribute, int64[N, attributes]."""
    return torch.tensor([[values.index(scene[name]) for name, values in ATTRIBUTES.items()] for scene in scenes])


def augment(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Shifts, blurs, tints and adds noise, so that a decoder's blur does not lower scores; x: float[B, 3, 64, 64]."""
    tint, offset, noise = torch.randn(len(x), 1, 1, 1), torch.randn(len(x), 3, 1, 1), torch.rand(len(x), 1, 1, 1)
    x = x * (1 + 0.08 * tint.to(x.device)) + 0.04 * offset.to(x.device) + 0.06 * noise.to(x.device) * torch.randn_like(x)
    if rng.random() < 0.5:
        x = 0.6 * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) + 0.4 * x
    right, down = (int(v) for v in rng.integers(0, 4, 2))
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    return padded[..., down : down + 64, right : right + 64].contiguous(memory_format=torch.channels_last)


def reduce_images(images: np.ndarray[Any, Any]) -> Tensor:
    """Reduces uint8[N, 256, 256, 3] to float32[N, 3, 64, 64] in -1..1."""
    return torch.cat([F.avg_pool2d(to_float(part), 4) for part in np.array_split(images, max(1, len(images) // 100))])


def train_scorer(scorer: Scorer, drawings: Sequence[Shard], path: Path, minutes: float) -> None:
    """Trains the scorer; leaves averaged weights in it, in evaluation mode."""
    run, rng = Run(scorer, path, minutes, 1.5e-3, PLAIN, flat=0.3), np.random.default_rng(3)
    device = next(scorer.parameters()).device
    small = torch.cat([reduce_images(shard.array("images")) for shard in drawings])
    classes = scene_classes([scene for shard in drawings for scene in shard.scenes()])
    for _ in run:
        index = torch.from_numpy(rng.integers(0, len(small), BATCH))
        heads = scorer.logits(augment(small[index].to(device), rng))
        losses = [F.cross_entropy(logits.float(), classes[index, i].to(device)) for i, logits in enumerate(heads)]
        run.step(torch.stack(losses).sum())
    scorer.load_state_dict(run.average.state_dict())
    scorer.eval()


@torch.no_grad()
def accuracies(scorer: Scorer, shard: Shard) -> dict[str, float]:
    """Accuracy per attribute on a held-out shard."""
    classes, small = scene_classes(shard.scenes()), reduce_images(shard.array("images"))
    logits = [scorer.logits(part) for part in small.to(next(scorer.parameters()).device).split(100)]
    predicted = [torch.cat(parts).argmax(1).cpu() for parts in zip(*logits, strict=True)]
    return {name: float((predicted[i] == classes[:, i]).float().mean()) for i, name in enumerate(ATTRIBUTES)}


def score(probabilities: Mapping[str, Sequence[float]], stated: Mapping[str, Value]) -> float:
    """Recall of stated things: mean probability of the stated values; probabilities: of each attribute, in the order of its values."""
    return float(np.mean([probabilities[name][ATTRIBUTES[name].index(value)] for name, value in stated.items()]))
