"""The parameters of a network by the name of its class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from costroute_rt.export.checkpoint.source.parameter.clip import clip_parameters
from costroute_rt.export.checkpoint.source.parameter.layer import Parameters
from costroute_rt.export.checkpoint.source.parameter.settings import Settings
from costroute_rt.export.checkpoint.source.parameter.tiny import tiny_decoder_parameters
from costroute_rt.export.checkpoint.source.parameter.unet import unet_parameters
from costroute_rt.export.checkpoint.source.parameter.vae import vae_parameters

CLASSES: Mapping[str, Callable[[Settings], Parameters]] = {
    "UNet2DConditionModel": unet_parameters,
    "AutoencoderKL": vae_parameters,
    "AutoencoderTiny": tiny_decoder_parameters,
    "CLIPTextModel": partial(clip_parameters, has_projection=False),
    "CLIPTextModelWithProjection": partial(clip_parameters, has_projection=True),
}
"""Of AutoencoderTiny, the decoder alone."""


def parameters(class_name: str, config: Mapping[str, Any], path: Path) -> Parameters:
    """Shape of each parameter by name. path: where the configuration is from, for messages. Raises BundleError for wrong settings."""
    return CLASSES[class_name](Settings(config, path))
