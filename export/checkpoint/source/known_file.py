"""Files that are no checkpoint of Stable Diffusion, told by the names of their tensors, with what to use instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Region

_PLAIN = "use the same model in float16, bfloat16 or float32"
_OTHER = "use a checkpoint of Stable Diffusion 1.x, 2.x or XL"
_PART = "use a file that holds the whole model, or a diffusers folder with it in its place"
_TEXT_TO_IMAGE = "use the base text-to-image checkpoint instead"
_LONGEST_NAME = 300
"""Of a tensor; longer ones tell nothing."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of file."""

    what: str
    pattern: str
    """Regular expression that the name of one of its tensors matches."""
    remedy: str


def _kinds(remedy: str, *entries: tuple[str, str]) -> tuple[_Kind, ...]:
    return tuple(_Kind(what, pattern, remedy) for what, pattern in entries)


_QUANTISED = _kinds(
    _PLAIN,
    ("it is quantised for nunchaku (SVDQuant)", r"(?:.*\.)?(?:wscales|smooth_factor(?:_orig)?|wtscale|wcscales)"),
    ("it is quantised to 4 bits (NVFP4)", r".*\.weight_scale_2"),
    ("it is quantised to 4 bits by bitsandbytes (nf4 or fp4)", r".*\.(?:absmax|quant_map|quant_state\..*)"),
    ("it is quantised to 4 bits (GPTQ or AWQ)", r".*\.(?:qweight|qzeros)"),
    ("it is scaled fp8", r"(?:.*\.)?(?:scaled_fp8|scale_weight|scale_input|weight_scale|input_scale|comfy_quant)"),
)
_SPECIAL = (
    *_kinds(
        "use the base model of Stable Diffusion XL", ("it is the refiner of Stable Diffusion XL", r"conditioner\.embedders\.0\.model\..*")
    ),
    *_kinds(
        _OTHER,
        ("it is CosXL or another model with EDM noise levels", r"edm_vpred\.sigma_max"),
        ("it is Playground 2.5, whose latents have EDM statistics", r"edm_mean"),
        ("it is a video model (SVD)", r"model\.diffusion_model\..*\.time_stack\..*"),
        ("it has motion modules (AnimateDiff)", r"(?:.*\.)?motion_modules\..*"),
    ),
    *_kinds(
        _TEXT_TO_IMAGE,
        ("it is a depth-to-image model", r"depth_model\..*"),
        ("it is unCLIP, which takes an image", r"(?:noise_augmentor|embedder\.model\.visual)\..*"),
        ("it is a ControlNet", r"(?:.*\.)?(?:control_model|controlnet_cond_embedding|input_hint_block|control_layers)\..*|lllite_.*"),
    ),
)
"""Told before anything else, because the rest of their tensors may be those of Stable Diffusion."""
_OTHERS = (
    *_kinds(
        "such files are not supported; use the checkpoint that it belongs to",
        ("it is a DoRA", r".*\.dora_scale"),
        ("it is a LoKr (LyCORIS)", r".*[._]lokr_w[12](?:_[ab])?"),
        ("it is a LoHa (LyCORIS)", r".*[._]hada_w[12]_[ab]"),
        ("it is an OFT (LyCORIS)", r".*[._](?:oft_blocks|oft_diag)"),
        ("it is a LyCORIS of full differences", r"lora_.*\.diff(?:_b)?"),
        ("it is an IP-Adapter", r"(?:ip_adapter|image_proj)\..*"),
        ("it is a T2I-Adapter", r"(?:adapter\.)?body\.\d+\.(?:resnets|block1|in_conv)\..*"),
    ),
    *_kinds(
        "export the checkpoint that it belongs to, and give it beside that",
        ("it is a LoRA", r".*[._]lora(?:_down|_up|_A|_B|\.down|\.up|_linear_layer)\b.*"),
        ("it is a textual inversion", r"emb_params|string_to_param|clip_[lg]|<.{1,60}>"),
    ),
    *_kinds(
        _OTHER,
        ("it is an upscaler (ESRGAN)", r"model\.\d+\.(?:sub\..*|weight)|conv_first\.weight"),
        ("it is Stable Diffusion 3", r"(?:.*\.)?joint_blocks\.\d+\..*"),
        ("it is FLUX.2", r"(?:.*\.)?double_stream_modulation_(?:img|txt)\..*"),
        ("it is Chroma", r"(?:.*\.)?distilled_guidance_layer\..*"),
        ("it is HunyuanVideo", r"(?:.*\.)?individual_token_refiner\..*"),
        ("it is FLUX", r"(?:.*\.)?(?:double_blocks\.\d+\.img_attn|single_transformer_blocks\.\d+)\..*"),
        ("it is Qwen-Image", r"(?:.*\.)?transformer_blocks\.\d+\.(?:img_mod|txt_mod)\..*"),
        ("it is Stable Diffusion 3 or a relative of it", r"(?:.*\.)?transformer_blocks\.\d+\.attn\.add_q_proj\..*"),
        ("it is Z-Image", r"(?:.*\.)?layers\.\d+\.adaLN_modulation\.0\..*"),
        ("it is Lumina 2", r"(?:.*\.)?(?:cap_embedder|noise_refiner)\..*"),
        ("it is Stable Cascade", r"(?:.*\.)?clip_txt_mapper\..*|down_blocks\.\d+\.\d+\.channelwise\..*"),
        ("it is HiDream", r"(?:.*\.)?double_stream_blocks\..*"),
        ("it is AuraFlow", r"(?:.*\.)?double_layers\.\d+\..*"),
        ("it is LTX-Video", r"(?:.*\.)?patchify_proj\..*"),
        ("it is Mochi", r"(?:.*\.)?blocks\.\d+\.attn\.qkv_x\..*"),
        ("it is Wan", r"(?:.*\.)?head\.modulation"),
        ("it is Hunyuan-DiT", r"(?:.*\.)?mlp_t5\..*"),
        ("it is Sana", r"(?:.*\.)?(?:attention_y_norm\.weight|blocks\.\d+\.mlp\.inverted_conv\..*|conv_inverted\..*)"),
        ("it is PixArt", r"(?:.*\.)?(?:adaln_single|y_embedder\.y_proj|caption_projection)\..*"),
    ),
    *_kinds(
        _PART,
        ("it is a UNet alone", r"(?:unet\.)?(?:input_blocks\.\d+|down_blocks\.\d+\.resnets|time_embedding)\..*"),
        ("it is a VAE alone", r"(?:first_stage_model\.|vae\.)?(?:encoder|decoder)\.(?:conv_in|mid|mid_block)\..*"),
        ("it is a tiny VAE (TAESD) alone",
         r"(?:taesd_)?(?:encoder\.|decoder\.)?(?:layers\.)?\d+\.(?:conv\.\d+\.)?weight"),
        ("it is a transformer alone, of a model that is not supported", r"(?:.*\.)?transformer_blocks\.\d+\.attn\d?\..*"),
        ("it is an image encoder of CLIP", r"(?:vision_model|visual)\..*"),
        ("it is a text encoder alone", r"(?:text_model|transformer|encoder\.block\.0|shared|model\.layers\.0|model\.embed_tokens)\..*"),
    ),
)  # fmt: skip
"""Told where a file has no UNet in the layout of Stable Diffusion; the first that matches is named."""


def find_kind(names: Iterable[str], kinds: Iterable[_Kind]) -> tuple[str, str] | None:
    """What a file with tensors of these names is, and what to use instead; None if it is of none of these kinds."""
    text = "\n".join(name for name in names if len(name) <= _LONGEST_NAME)
    for kind in kinds:
        if re.search(f"^(?:{kind.pattern})$", text, re.MULTILINE):
            return kind.what, kind.remedy
    return None


def check_special(tensors: Mapping[str, Region], path: Path) -> None:
    """Raises BundleError for quantised weights, and for models that look like Stable Diffusion but take or make something else."""
    found = find_kind(tensors, (*_QUANTISED, *_SPECIAL))
    if found is not None:
        raise BundleError(path, *found)
    low = sorted({region.dtype for region in tensors.values() if region.dtype.startswith(("F8_", "F4", "F6_"))})
    if low:
        raise BundleError(path, f"it is stored as {'fp8' if low[0].startswith('F8') else 'fp4'} ({', '.join(low)})", _PLAIN)


def refuse_other(tensors: Mapping[str, Region], path: Path) -> BundleError:
    """The error for a file without a UNet of Stable Diffusion."""
    found = find_kind(tensors, _OTHERS)
    if found is not None:
        return BundleError(path, *found)
    problem = "it has no UNet of Stable Diffusion (no tensor model.diffusion_model.input_blocks.0.0.weight)"
    return BundleError(path, f"{problem} and nothing else that is known", _OTHER)
