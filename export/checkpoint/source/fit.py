"""Whether the networks of a model fit each other, and the denoiser has only inputs that the runtime feeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.refusal import BASE_MODEL, plain_value, unknown_channels, unknown_input, unknown_width
from costroute_rt.export.checkpoint.source.parameter.settings import Settings
from costroute_rt.export.checkpoint.weight_file import DOWNLOAD_AGAIN

_SIZES = "projection_class_embeddings_input_dim"


def check_configs(configs: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Raises BundleError if the denoiser has an input that the runtime does not feed, or does not fit the other networks.

    configs: settings of each network by its folder.
    """
    unet, is_xl = configs["unet"], "text_encoder_2" in configs
    latents = Settings(configs["vae"], path).whole("latent_channels", 4)
    encoders = [configs[name] for name in ("text_encoder", "text_encoder_2") if name in configs]
    width = sum(Settings(config, path).whole("hidden_size", 512) for config in encoders)
    found = unknown_channels(unet, latents) or unknown_input(unet, takes_guidance=True, takes_sizes=is_xl) or unknown_width(unet, width)
    found = found or (_unknown_sizes(unet, encoders[1]) if is_xl else None)
    if found is not None:
        problem, remedy = found
        raise BundleError(path, f"its denoiser {problem}", remedy)


def _unknown_sizes(unet: Mapping[str, Any], encoder: Mapping[str, Any]) -> tuple[str, str] | None:
    """What an XL denoiser takes beside text, if it is not pooled text and six numbers for the image's sizes, and what to do instead."""
    if unet.get("addition_embed_type") != "text_time":
        return "takes no pooled text and image sizes, as those of Stable Diffusion XL do", BASE_MODEL
    each, pooled, taken = unet.get("addition_time_embed_dim"), encoder.get("projection_dim", 512), unet.get(_SIZES)
    if type(each) is not int or type(pooled) is not int:
        return f"has {plain_value(each)} numbers for each size, and {plain_value(pooled)} for pooled text", DOWNLOAD_AGAIN
    if taken == pooled + 5 * each:
        return "is that of a refiner, which needs an image and an aesthetic score", BASE_MODEL
    if taken != pooled + 6 * each:
        return f"takes {plain_value(taken)} numbers beside text, pooled text and sizes are {pooled + 6 * each}", DOWNLOAD_AGAIN
    return None
