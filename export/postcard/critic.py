"""A discriminator between latents of drawn scenes and a student's latents; it keeps turbo's images natural where it has no target image."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from costroute_rt.export.postcard.latent_scorer import noisy
from costroute_rt.export.postcard.networks import LATENT_CHANNELS

WIDTHS = (96, 160, 224)
RATE = 4e-4
NOISE = 0.3
"""Largest standard deviation of noise added to its input, so that it looks at things and not at artefacts (Wang et al. 2022)."""


class Critic(nn.Module):
    """latents float[B, 16, 16, 16] -> logits float[B, 1, 4, 4], above zero where it classifies them as drawn."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        shapes = ((LATENT_CHANNELS, a, 1), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1))
        convs = [spectral_norm(nn.Conv2d(i, o, 3, stride, 1)) for i, o, stride in shapes]
        self.layers = nn.Sequential(*(part for conv in convs for part in (conv, nn.LeakyReLU(0.2))), spectral_norm(nn.Conv2d(c, 1, 1)))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=RATE, betas=(0.0, 0.9))

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(noisy(latents, NOISE).contiguous(memory_format=torch.channels_last)).float()

    def learn(self, drawn: Tensor, generated: Tensor) -> float:
        """One optimizer step on the hinge loss (Lim and Ye 2017); returns the loss."""
        self.requires_grad_(True)
        loss = F.relu(1 - self(drawn)).mean() + F.relu(1 + self(generated.detach())).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.requires_grad_(False)
        return loss.item()
