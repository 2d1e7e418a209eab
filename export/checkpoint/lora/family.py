"""Which family a LoRA was made for, as far as its file tells."""

from __future__ import annotations

from collections.abc import Mapping

from costroute_rt.export.checkpoint.lora.lora import Lora

_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Families by the width of the text that their denoisers attend to."""
_TRAINERS = ("modelspec.architecture", "ss_base_model_version")
"""Where trainers write what they trained on: the specification of Stability, and kohya's scripts."""
_NAMES = (
    ("stable-diffusion-xl", "sdxl"),
    ("sdxl", "sdxl"),
    ("stable-diffusion-v1", "sd1"),
    ("sd_v1", "sd1"),
    ("stable-diffusion-v2", "sd2"),
    ("sd_v2", "sd2"),
    ("stable-diffusion-3", "Stable Diffusion 3"),
    ("sd3", "Stable Diffusion 3"),
    ("flux", "FLUX"),
    ("z-image", "Z-Image"),
    ("zimage", "Z-Image"),
    ("qwen", "Qwen-Image"),
    ("wan", "Wan"),
    ("hunyuan", "Hunyuan"),
    ("lumina", "Lumina"),
    ("chroma", "Chroma"),
    ("auraflow", "AuraFlow"),
    ("pixart", "PixArt"),
    ("stable-cascade", "Stable Cascade"),
)
"""Beginnings of what they write; families that are not keys of FAMILIES cannot be used."""


def find_family(metadata: Mapping[str, str]) -> str | None:
    """The family that the trainer wrote into the file: sd1, sd2, sdxl, or the name of another one; None if it wrote none that is known."""
    for key in _TRAINERS:
        text = metadata.get(key, "").lower()
        if name := next((name for beginning, name in _NAMES if text.startswith(beginning)), None):
            return name
    return None


def guess_family(lora: Lora) -> str | None:
    """sd1, sd2 or sdxl by the widths of its layers, its networks and its metadata, in this order; None if they do not tell."""
    for module in lora.modules:
        if module.network == "unet" and module.layer.endswith(("attn2_to_k", "attn2_to_v")) and module.down.shape[1] in _WIDTHS:
            return _WIDTHS[module.down.shape[1]]
    if any(module.network == "text_encoder_2" for module in lora.modules):
        return "sdxl"
    return find_family(lora.metadata)
