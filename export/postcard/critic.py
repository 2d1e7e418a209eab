"""Tells latents of drawn scenes from a student's: what keeps turbo's pictures natural where nobody shows it the right one."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from costroute_rt.export.postcard.latent_scorer import noisy
from costroute_rt.export.postcard.networks import LATENT_CHANNELS

WIDTHS = (96, 160, 224)
RATE = 4e-4
NOISE = 0.3
"""Largest spread of the noise added to what it sees, so that it judges things and not traces (Wang et al. 2022, Diffusion-GAN)."""


class Critic(nn.Module):
    """latents float[B, 16, 16, 16] -> float[B, 1, 4, 4], above zero where it takes them for drawn."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        shapes = ((LATENT_CHANNELS, a, 1), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1))
        convs = [spectral_norm(nn.Conv2d(i, o, 3, stride, 1)) for i, o, stride in shapes]
        self.layers = nn.Sequential(*(part for conv in convs for part in (conv, nn.LeakyReLU(0.2))), spectral_norm(nn.Conv2d(c, 1, 1)))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=RATE, betas=(0.0, 0.9))

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(noisy(latents, NOISE).contiguous(memory_format=torch.channels_last)).float()

    def learn(self, drawn: Tensor, made: Tensor) -> float:
        """One step down the hinge loss (Lim and Ye 2017), which it returns."""
        self.requires_grad_(True)
        loss = F.relu(1 - self(drawn)).mean() + F.relu(1 + self(made.detach())).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.requires_grad_(False)
        return loss.item()
