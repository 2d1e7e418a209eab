"""The names of tensors in LoRA files: kohya's, those of diffusers before and since version 0.18, and peft's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ATTENTION = r"(?P<name>.+\.to_(?:q|k|v|out))_lora\.(?P<part>up|down)\.weight"
"""A layer of diffusers' attention processors."""
_FORMS = tuple(
    re.compile(form)
    for form in (
        r"(?P<name>.+)\.lora_(?P<part>up|down|mid)\.weight",
        r"(?P<name>.+)\.(?P<part>alpha)",
        r"(?P<name>.+)\.lora_(?P<part>A|B)(?:\.\w+)?\.weight",
        r"(?P<name>.+)\.(?:lora|lora_linear_layer)\.(?P<part>up|down)\.weight",
        _ATTENTION,
    )
)
_PARTS = {"A": "down", "B": "up"}
_PREFIXES = {
    "base_model.model.": None,
    "model.diffusion_model.": "unet",
    "diffusion_model.": "unet",
    "lora_unet_": "unet",
    "unet.": "unet",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te_": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder.": "text_encoder",
}
"""The network that each prefix means; peft's own prefix means none."""
_TEXT_LAYERS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

_METHODS = (
    (r"\.dora_scale$|\.lora_magnitude_vector", "a DoRA"),
    (r"\.hada_", "a LoHa"),
    (r"\.lokr_", "a LoKr"),
    (r"\.boft_|\.oft_blocks|\.oft_diag|\.oft_R", "an OFT or BOFT"),
    (r"\.[ab][12]\.weight$|\.bm[12]\.weight$", "a GLoRA"),
    (r"\.on_input$|\.ia3_l", "an (IA)^3"),
    (r"\.lora_B(\.\w+)?\.bias$|\.lora_up\.bias$", "a LoRA with biases"),
    (r"\.lora_embedding_", "a LoRA of embeddings"),
    (r"\.vera_lambda_|\.vera_[AB]", "a VeRA"),
    (r"\.diff(_b)?$|\.diff\.weight$|\.[wb]_norm$", "a file of full differences (`diff`)"),
)
"""Methods that are not low-rank sums, by names of tensors that only they have."""
_BARE = "sd_model|cond_stage_model|first_stage_model|conditioner|model_ema"
_OTHER_FAMILIES = (
    (r"double_blocks[._]\d+[._]|single_transformer_blocks|single_blocks[._]\d+[._]", "FLUX"),
    (r"joint_blocks", "Stable Diffusion 3"),
    (r"transformer_blocks[._]\d+[._](img_mlp|txt_mlp|img_mod|txt_mod)", "Qwen-Image"),
    (r"(^|[._])blocks[._]\d+[._](cross_attn|self_attn|ffn)[._]", "Wan"),
    (r"(noise_refiner|context_refiner)[._]\d+|(^|[._])layers[._]\d+[._](attention|adaLN_modulation|feed_forward)[._]", "Z-Image or Lumina"),
    (r"transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj", "Stable Diffusion 3"),
    (r"^lora_prior_unet_|^prior\.", "Stable Cascade"),
    (r"^lora_transformer_|^transformer\.", "a transformer, such as FLUX, Stable Diffusion 3 or PixArt"),
)
"""Families whose LoRAs cannot be used, by names of their layers; the first that fits."""


@dataclass(frozen=True, slots=True)
class Key:
    """What one tensor of a LoRA file is."""

    name: str
    """Of the layer, as the file calls it."""
    network: str
    layer: str
    """With underscores for dots."""
    part: str
    """down, up, mid or alpha."""


def read_key(key: str) -> Key | None:
    """What the tensor of this name is; None if it belongs to no known layout."""
    match = next(filter(None, (form.fullmatch(key) for form in _FORMS)), None)
    if match is None:
        return None
    name, part = match["name"], match["part"]
    network, layer = _split_network(name)
    layer = layer.replace(".processor", "").replace(".", "_")
    if match.re.pattern == _ATTENTION:
        layer = _attention_layer(layer, network)
    return Key(name, network, layer, _PARTS.get(part, part))


def find_method(keys: Sequence[str]) -> str | None:
    """The method, such as `a DoRA`, of a file that is no plain LoRA; None for others."""
    return next((name for form, name in _METHODS if any(map(re.compile(form).search, keys))), None)


def find_other_family(keys: Sequence[str]) -> str | None:
    """The family of a file that is for none of Stable Diffusion 1, 2 and SDXL, judged by the names of layers; None for these."""
    return next((name for form, name in _OTHER_FAMILIES if any(map(re.compile(form).search, keys))), None)


def is_checkpoint(keys: Sequence[str]) -> bool:
    """Whether these are the names of a whole model's weights rather than of changes."""
    whole = re.compile(rf"^({_BARE}|model\.diffusion_model)\.|^(down_blocks|up_blocks|mid_block)\.|^text_model\.|^(encoder|decoder)\.")
    return any(whole.search(key) and read_key(key) is None for key in keys)


def is_embedding(keys: Sequence[str]) -> bool:
    """Whether these are the names of a textual inversion's vectors."""
    return any(key in ("emb_params", "clip_l", "clip_g") for key in keys)


def _split_network(name: str) -> tuple[str, str]:
    """The network, and the name of the layer in it; without any prefix it is a text encoder's or the denoiser's by its first word."""
    network: str | None = None
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        network, name = network or _PREFIXES[prefix], name.removeprefix(prefix)
    return network or ("text_encoder" if name.startswith(("text_model.", "text_projection")) else "unet"), name


def _attention_layer(layer: str, network: str) -> str:
    """The layer that an attention processor's changes belong to."""
    if network == "unet":
        return layer + "_0" if layer.endswith("to_out") else layer
    head, _, tail = layer.rpartition("_to_")
    return f"{head}_{_TEXT_LAYERS[f'to_{tail}']}"
