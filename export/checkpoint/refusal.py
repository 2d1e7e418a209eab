"""What a part of a checkpoint has that cannot be exported, and what to do instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.weight_file import read_config

NETWORKS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
BASE_MODEL = "export the base text-to-image checkpoint instead"
FUSE_LCM = "fuse the LCM LoRA into its base checkpoint and export that with LCMScheduler"


def check_class(path: Path, folder: str, config: Mapping[str, Any]) -> None:
    """Raises BundleError for a network of another class, or with quantised weights."""
    wanted = NETWORKS["unet" if folder.startswith("unet") else folder]
    names = config.get("architectures") if folder == "text_encoder" else config.get("_class_name")
    found = names[0] if isinstance(names, list) and len(names) == 1 else names
    if found is not None and found != wanted:
        raise BundleError(path, f"it is a {plain_value(found)}", f"only a {wanted} can be exported")
    if config.get("quantization_config") is not None:
        raise BundleError(path, "its weights are quantised", "use the checkpoint in float16, bfloat16 or float32")


def check_tokenizer(folder: Path) -> None:
    """Raises BundleError for a tokenizer of another class; its words are read later."""
    path = folder / "tokenizer_config.json"
    name = read_config(path).get("tokenizer_class") if path.exists() else None
    if name is not None and name not in _TOKENIZERS:
        raise BundleError(folder, f"it is a {plain_value(name)}", f"only a {_TOKENIZERS[0]} can be exported")


def unknown_input(config: Mapping[str, Any], *, takes_guidance: bool = False, takes_sizes: bool = False) -> tuple[str, str] | None:
    """An input that the runtime does not feed, and what to do instead; None if there is none.

    takes_guidance: whether a denoiser may embed the guidance scale. takes_sizes: whether it may take pooled text and image sizes.
    """
    if config.get("time_cond_proj_dim") is not None and not takes_guidance:
        problem = "is a latent consistency model, which embeds the guidance scale (timestep_cond)"
        return problem, f"such denoisers are not supported here: {FUSE_LCM}"
    if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        return "takes class labels (class_labels)", f"such denoisers are not supported; {BASE_MODEL}"
    addition = config.get("addition_embed_type")
    if addition == "text_time" and not takes_sizes:
        return "takes pooled text and image sizes (text_embeds, time_ids)", "only a StableDiffusionXLPipeline gives it these"
    if addition not in (None, "text", "text_time"):
        return f"takes more than text (addition_embed_type {plain_value(addition)})", f"such denoisers are not supported; {BASE_MODEL}"
    hidden = config.get("encoder_hid_dim_type")
    if hidden == "ip_image_proj":
        return "has an IP-Adapter, which takes an image (image_embeds)", "save the checkpoint after unload_ip_adapter()"
    if hidden not in (None, "text_proj"):
        return f"takes image embeddings (encoder_hid_dim_type {plain_value(hidden)})", f"such denoisers are not supported; {BASE_MODEL}"
    return None


def unknown_channels(config: Mapping[str, Any], latents: int) -> tuple[str, str] | None:
    """Input or output channels that are not those of the latents, and what to do instead; None if all are."""
    taken, given = config.get("in_channels", 4), config.get("out_channels", 4)
    if taken != latents:
        kinds = {
            2 * latents + 1: "inpainting",
            latents + 1: "depth to image",
            2 * latents: "image editing, such as InstructPix2Pix",
            latents + 3: "upscaling",
        }
        kind = f" ({kinds[taken]})" if isinstance(taken, int) and taken in kinds else ""
        problem = f"takes {plain_value(taken)} channels{kind}, the VAE's latents have {latents}"
        return problem, f"inpainting and image-conditioned denoisers are not supported; {BASE_MODEL}"
    if given != latents:
        problem = f"gives {plain_value(given)} channels, the VAE's latents have {latents}"
        return problem, "denoisers that also predict a variance are not supported"
    return None


def unknown_width(config: Mapping[str, Any], text_width: int) -> tuple[str, str] | None:
    """A width of the text's states that the text encoder does not have, and what to do instead; None if they fit."""
    width = config.get("encoder_hid_dim") or config.get("cross_attention_dim", 1280)
    widths = width if isinstance(width, list) else [width]
    if all(each == text_width for each in widths):
        return None
    problem = f"takes text of width {plain_value(width)}, the text encoder's has {text_width}"
    return problem, "use the text encoder that the denoiser was trained with"


def plain_value(value: object) -> str:
    """A value of a configuration, short and without quotation marks."""
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:80]
