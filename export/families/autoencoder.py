"""The VAE of Stable Diffusion, diffusers' AutoencoderKL, and its small stand-in, AutoencoderTiny."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.export.families.layer import use_live_shapes

LATENT, IMAGE = "latent", "image"


def decoder_spec(config: Mapping[str, Any]) -> GraphSpec:
    """latent -> image, float32 in -1..1."""
    return GraphSpec({LATENT: _latent(config)}, {IMAGE: _image(config)})


def encoder_spec(config: Mapping[str, Any]) -> GraphSpec:
    """image, float32 in -1..1 -> latent."""
    return GraphSpec({IMAGE: _image(config)}, {LATENT: _latent(config)})


class Decoder(nn.Module):
    """For an export: latent -> image. The network is changed, and computes nothing outside an export."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        use_live_shapes(network)

    def forward(self, latent: Tensor) -> Tensor:
        return run_decoder(self.network, {LATENT: latent})[IMAGE]


class Encoder(nn.Module):
    """For an export: image -> latent, the most likely one. The network is changed, and computes nothing outside an export."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        use_live_shapes(network)

    def forward(self, image: Tensor) -> Tensor:
        return run_encoder(self.network, {IMAGE: image})[LATENT]


def run_decoder(network: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image of an unchanged network for a latent."""
    return {IMAGE: network.decode(given[LATENT], return_dict=False)[0]}


def run_encoder(network: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The most likely latent of an unchanged network for an image."""
    found = network.encode(given[IMAGE], return_dict=False)[0]
    return {LATENT: found.mode() if hasattr(found, "mode") else found}


def _latent(config: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec("float32", ("batch", int(config["latent_channels"]), "height", "width"))


def _image(config: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec("float32", ("batch", int(config["out_channels"]), "image_height", "image_width"))
