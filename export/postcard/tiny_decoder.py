"""The tiny decoder: a fifth of the full decoder's operations, learned from it.

Half of each batch are latents of drawn scenes, whose target is the drawing; the other half are latents that the denoisers generate, errors
of few steps included, whose target is the image that the full decoder makes of them. The loss is the full decoder's own. The scorer takes
no part, so that it measures images of both decoders alike.
"""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizerFast

from costroute_rt.export.postcard.autoencoder import DOWN, encode, pixel_weight, psnr, reconstruction_loss, to_float
from costroute_rt.export.postcard.dataset import SHARD, Shard, shards
from costroute_rt.export.postcard.networks import LATENT_CHANNELS
from costroute_rt.export.postcard.pairs import draw_caption, sample
from costroute_rt.export.postcard.text import tokenize
from costroute_rt.export.postcard.training import Run

logger = logging.getLogger(__name__)
WIDTHS, BLOCKS = (96, 64, 32, 16), (1, 1, 1, 1)
"""Channels and residual blocks at 16, 32, 64 and 128 cells a side."""
PATCH = 2
"""Pixels a side that each of the finest cells becomes."""
DRAWN, GENERATED = 4, 4
"""Numbers of drawn scenes and of generated latents in a batch."""
NOISE = 0.15
"""Largest standard deviation of noise added to latents of drawn scenes, as in the training of the full decoder."""
SAMPLED = 50
"""Latents that are generated at once, all by the same denoiser and number of steps."""
RATE = 2e-3
PLAIN = ("conv_in", "conv_out")
"""Layers trained by AdamW, see Optimizer."""


class Block(nn.Module):
    """A residual block without a norm, float[B, C, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class TinyDecoder(ModelMixin, ConfigMixin):
    """latent float[B, 16, 16, 16] -> image float[B, 3, 256, 256], about -1..1.

    No convolution is as fine as the image, where it would cost most: pixels come from a last shuffle.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = LATENT_CHANNELS,
        widths: Sequence[int] = WIDTHS,
        blocks: Sequence[int] = BLOCKS,
        patch: int = PATCH,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(nn.Sequential(*(Block(w) for _ in range(n))) for w, n in zip(widths, blocks, strict=True))
        self.widen = nn.ModuleList(nn.Conv2d(w, 4 * after, 1) for w, after in pairwise(widths))
        self.conv_out = nn.Conv2d(widths[-1], 3 * patch**2, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.levels[0](F.relu(self.conv_in(latent)))
        for widen, level in zip(self.widen, self.levels[1:], strict=True):
            x = level(F.relu(F.pixel_shuffle(widen(x), 2)))
        return F.pixel_shuffle(self.conv_out(x), self.config.patch)


@dataclass(frozen=True)
class Generator:
    """Generates latents as the family's candidates do."""

    denoisers: Mapping[str, UNet2DConditionModel]
    text: CLIPTextModel
    tokenizer: CLIPTokenizerFast
    candidates: Sequence[Mapping[str, object]]
    """Rows of the bundle's pool, each with denoiser, num_inference_steps and guidance_scale."""

    @torch.no_grad()
    def shard(self, number: int) -> Iterator[Tensor]:
        """Latents of new random captions, float32[SAMPLED, 16, 16, 16] by one candidate after the other, SHARD in all."""
        rng, generator = random.Random(f"decodings-{number}"), torch.Generator().manual_seed(number)
        for part in range(SHARD // SAMPLED):
            row = self.candidates[part % len(self.candidates)]
            unet = self.denoisers[str(row["denoiser"])]
            texts = ["", *(draw_caption(rng.random() < 0.5, rng)[0] for _ in range(SAMPLED))]
            noise = torch.randn(SAMPLED, LATENT_CHANNELS, 16, 16, generator=generator).to(unet.device)
            with torch.autocast(unet.device.type, torch.bfloat16):
                empty, *states = self.text(tokenize(self.tokenizer, texts).to(unet.device)).last_hidden_state
                steps, guidance = int(str(row["num_inference_steps"])), float(str(row["guidance_scale"]))
                yield sample(unet, torch.stack(states), empty[None], noise, steps, guidance).float()


def make_decodings(generator: Generator, vae: AutoencoderKL, folder: Path, count: int) -> None:
    """Writes shards of generated latents float16[SHARD, 16, 16, 16] and of their full decodings uint8[SHARD, 256, 256, 3]."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in shards(folder, count):
        if not shard.path("images").exists():
            latents = [part.half() for part in generator.shard(shard.number)]
            images = [decode(vae.decoder, part) for part in latents]
            shard.save("latents", torch.cat(latents).cpu().numpy())
            shard.save("images", np.concatenate(images))  # written last: it marks the shard as complete
            logger.info("decodings: shard %d of %d", shard.number + 1, -(-count // SHARD))


@torch.no_grad()
def encode_drawings(vae: AutoencoderKL, drawings: Sequence[Shard]) -> None:
    """Writes the latents of drawn scenes, float16[SHARD, 16, 16, 16], beside their images."""
    device = next(vae.parameters()).device
    for shard in drawings:
        if not shard.path("latents").exists():
            with torch.autocast(device.type, torch.bfloat16):
                parts = [encode(vae, to_float(rows, device)).half().cpu().numpy() for rows in np.array_split(shard.array("images"), 100)]
            shard.save("latents", np.concatenate(parts))


@torch.no_grad()
def decode(decoder: nn.Module, latents: Tensor) -> NDArray[np.uint8]:
    """The images of latents float[N, 16, 16, 16], uint8[N, 256, 256, 3]."""
    device, parts = next(decoder.parameters()).device, []
    for rows in latents.split(10):
        with torch.autocast(device.type, torch.bfloat16):
            image = decoder(rows.to(device).float().contiguous(memory_format=torch.channels_last)).float()
        parts.append(((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


class Targets:
    """Random latents of shards and the images they shall become, with pixel weights."""

    def __init__(self, parts: Sequence[Shard], rng: np.random.Generator) -> None:
        self.latents = [shard.array("latents") for shard in parts]
        self.images = [shard.array("images") for shard in parts]
        self.masks = [shard.array("masks") if shard.path("masks").exists() else None for shard in parts]
        self.rng = rng

    def sample(self, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """(latents float[B, 16, 16, 16], images float[B, 3, 256, 256] in -1..1, weights float[B, 1, 256, 256], 1 without masks)."""
        rows = [(s, int(self.rng.integers(len(self.images[s])))) for s in self.rng.integers(len(self.images), size=count).tolist()]
        latents = torch.from_numpy(np.stack([self.latents[s][i] for s, i in rows])).to(device).float()
        images = to_float(np.stack([self.images[s][i] for s, i in rows]), device)
        weights = [self._weight(s, i, device) for s, i in rows]
        return latents, images, torch.cat(weights)

    def _weight(self, shard: int, row: int, device: torch.device) -> Tensor:
        masks = self.masks[shard]
        if masks is None:
            side = DOWN * self.latents[shard].shape[-1]
            return torch.ones(1, 1, side, side, device=device)
        return pixel_weight(masks[row][None], device)


def train_tiny_decoder(decoder: TinyDecoder, drawn: Sequence[Shard], generated: Sequence[Shard], path: Path, minutes: float) -> None:
    """Trains `decoder` on drawings and full decodings; leaves averaged weights in it.

    drawn: shards of drawings with their latents, see `encode_drawings`. generated: shards of `make_decodings`.
    """
    run = Run(decoder, path, minutes, RATE, PLAIN, flat=0.4)
    device, rng = next(decoder.parameters()).device, np.random.default_rng(run.steps)
    drawings, decodings = Targets(drawn, rng), Targets(generated, rng)
    for _ in run:
        batches = (drawings.sample(DRAWN, device), decodings.sample(GENERATED, device))
        latents, images, weights = (torch.cat(parts) for parts in zip(*batches, strict=True))
        spread = NOISE * torch.rand(DRAWN, 1, 1, 1, device=device)
        latents[:DRAWN] += spread * torch.randn_like(latents[:DRAWN])
        output = decoder(latents.contiguous(memory_format=torch.channels_last)).float()
        run.step(reconstruction_loss(output, images, weights))
    decoder.load_state_dict(run.average.state_dict())


def agreement(decoder: nn.Module, held_out: Shard, count: int = 200) -> float:
    """Mean PSNR of the decoder's images against the full decoder's, in dB, over the last generated latents of a shard."""
    latents, images = held_out.array("latents")[-count:], held_out.array("images")[-count:]
    return psnr(decode(decoder, torch.from_numpy(latents.copy())), images)
