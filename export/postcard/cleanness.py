"""Cleanness: a network that tells drawn scenes from images with ghosts, blur, doubles and half-drawn things, whatever a caption states.

It learns from four kinds of images. Clean are drawings, and drawings encoded and decoded by the autoencoder, whose softness is therefore no
fault. Unclean are images that the denoisers generate in few and in many steps; latents of two drawings mixed, as undecided denoisers make
them; drawings with a thing drawn twice; and drawings with a ghost or blur, whole or in places. All but the first do not depend on the
denoisers' weights, so that the network can judge other ones.

Each of 16 x 16 patches has a logit of its own, which must tell the kind of its image. Where an image is like a drawing its patches cannot
tell, so that the mean of the logits falls with the area and the strength of what is wrong, instead of being all or nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from costroute_rt.export.postcard.autoencoder import to_float
from costroute_rt.export.postcard.faults import Halves
from costroute_rt.export.postcard.scorer import Block, downsample
from costroute_rt.export.postcard.training import Run

WIDTHS = (12, 24, 48)
CLEAN_IMAGES, UNCLEAN_IMAGES, SPOILT_IMAGES = 24, 20, 10
"""Numbers of clean images, of images that are unclean in the data, and of clean ones that get a ghost or blur, in a batch."""
PLAIN = ("head", "layers.0.0.")
"""Layers trained by AdamW, see Optimizer."""
RATE = 1.5e-3
OF_DRAWINGS = 0.9
"""Median cleanness of drawings, encoded and decoded, which fixes the scale."""


class Cleanness(nn.Module):
    """image float[B, 3, 256, 256] in -1..1 -> cleanness float[B] in 0..1: the mean logit of all patches, through a sigmoid.

    It looks at the image reduced to 128 x 128 pixels; a patch sees 71 of them, so that most things fit into its view.
    """

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.layers = nn.Sequential(*(part for i, o in ((3, a), (a, b), (b, c)) for part in (downsample(i, o), Block(o))))
        self.head = nn.Conv2d(c, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.patches(F.avg_pool2d(image, 2)).mean((1, 2)).sigmoid()

    def patches(self, half: Tensor) -> Tensor:
        """The logit of each patch, float[B, 16, 16]; half: float[B, 3, 128, 128]."""
        return self.head(self.layers(half))[:, 0]


def random_masks(count: int, rng: np.random.Generator) -> Tensor:
    """Soft masks float[count, 1, 128, 128] in 0..1: all of the image for a third of them, else one to three round spots."""
    axis = np.arange(128)
    masks = np.ones((count, 1, 128, 128), np.float32)
    for mask in masks:
        if rng.random() < 1 / 3:
            continue
        far = np.ones((128, 128))
        for _ in range(rng.integers(1, 4)):
            (x, y), radius = rng.uniform(10, 118, 2), rng.uniform(12, 40)
            spot = np.exp(-((((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / radius**2) ** 2))
            far *= 1 - spot
        mask[0] = 1 - far
    return torch.from_numpy(masks)


def spoil(half: Tensor, others: Tensor, rng: np.random.Generator) -> Tensor:
    """Adds ghosts of other images, shifted copies of the same image, or blur, each to a third; float[B, 3, 128, 128]."""
    masks, spoilt = random_masks(len(half), rng).to(half.device), []
    for image, other, mask in zip(half, others, masks, strict=True):
        kind = rng.integers(3)
        if kind == 0:
            wrong, share = other, rng.uniform(0.15, 0.6)
        elif kind == 1:
            shift = tuple(int(v) for v in rng.integers(2, 13, 2) * rng.choice((-1, 1), 2))
            wrong, share = torch.roll(image, shift, (1, 2)), rng.uniform(0.2, 0.6)
        else:
            wrong, share = blurred(image, rng.uniform(0.8, 4.0)), 1.0
        spoilt.append(torch.lerp(image, wrong, share * mask))
    return torch.stack(spoilt)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur; image: float[3, H, W]; sigma: pixels."""
    reach = int(3 * sigma) + 1
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, device=image.device) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(image[None], (reach,) * 4, mode="replicate")
    with torch.autocast(image.device.type, enabled=False):  # the levels of 16 bits would give a blur away
        return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)[0]


def augment(half: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirrors half of the batches, shifts, tints and adds noise; float[B, 3, 128, 128]."""
    gain, offset, noise = torch.randn(len(half), 1, 1, 1), torch.randn(len(half), 3, 1, 1), torch.rand(len(half), 1, 1, 1)
    half = half * (1 + 0.05 * gain) + 0.03 * offset + 0.03 * noise * torch.randn(half.shape)
    if rng.random() < 0.5:
        half = half.flip(3)
    down, right = (int(v) for v in rng.integers(0, 9, 2))
    padded = F.pad(half, (4, 4, 4, 4), mode="replicate")
    return padded[..., down : down + 128, right : right + 128].contiguous(memory_format=torch.channels_last)


def train_cleanness(network: Cleanness, clean: Sequence[Halves], unclean: Sequence[Halves], path: Path, minutes: float) -> None:
    """Trains `network` on arrays of examples, each drawn from as often as the others; leaves averaged weights in it, in evaluation mode."""
    run = Run(network, path, minutes, RATE, PLAIN, flat=0.3)
    rng = np.random.default_rng(run.steps)

    def sample(arrays: Sequence[Halves], count: int) -> Tensor:
        chosen = [arrays[i] for i in rng.integers(len(arrays), size=count)]
        return to_float(np.stack([array[rng.integers(len(array))] for array in chosen]))

    wanted = torch.zeros(CLEAN_IMAGES + UNCLEAN_IMAGES + SPOILT_IMAGES)
    wanted[:CLEAN_IMAGES] = 1
    share = torch.where(wanted == 1, 0.5 / CLEAN_IMAGES, 0.5 / (UNCLEAN_IMAGES + SPOILT_IMAGES))
    for _ in run:
        spoilt = spoil(sample(clean, SPOILT_IMAGES), sample(clean, SPOILT_IMAGES), rng)
        images = augment(torch.cat([sample(clean, CLEAN_IMAGES), sample(unclean, UNCLEAN_IMAGES), spoilt]), rng)
        logits = network.patches(images).float()
        losses = F.binary_cross_entropy_with_logits(logits, wanted[:, None, None].expand_as(logits), reduction="none")
        run.step((losses.mean((1, 2)) * share).sum())
    network.load_state_dict(run.average.state_dict())
    network.eval()


@torch.no_grad()
def set_scale(network: Cleanness, decoded: Halves) -> None:
    """Moves all logits so that these drawings, encoded and decoded, have a median cleanness of OF_DRAWINGS."""
    wanted = float(np.log(OF_DRAWINGS / (1 - OF_DRAWINGS)))
    network.head.bias += wanted - float(np.median(mean_logits(network, decoded)))


@torch.no_grad()
def mean_logits(network: Cleanness, halves: Halves) -> NDArray[np.float32]:
    """Mean logit of each image uint8[N, 128, 128, 3], float32[N]."""
    parts = [network.patches(to_float(part)).mean((1, 2)) for part in np.array_split(halves, max(1, len(halves) // 50))]
    return torch.cat(parts).numpy()
