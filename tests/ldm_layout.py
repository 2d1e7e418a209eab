"""Names of tensors in single files of Stable Diffusion (latent diffusion, "LDM"), by those of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.tensor_file import Tensors

Array = np.ndarray[Any, Any]

_OUTER = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
_UNET_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
_VAE_PARTS = {
    "mid_block.resnets.0": "mid.block_1", "mid_block.attentions.0": "mid.attn_1", "mid_block.resnets.1": "mid.block_2",
    "conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut", ".resnets.": ".block.", "downsamplers.0": "downsample",
    "upsamplers.0": "upsample", "down_blocks": "down", "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip
_UP = {"up_blocks.0": "up.3", "up_blocks.1": "up.2", "up_blocks.2": "up.1", "up_blocks.3": "up.0"}
_CLIP_PARTS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding", "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks", "layer_norm": "ln_", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def unet_to_ldm(tensors: Tensors, config: Mapping[str, Any]) -> dict[str, Array]:
    found, blocks = {}, _unet_blocks(config)
    for name, tensor in tensors.items():
        parts = name.split(".")
        block = next(each for end in range(len(parts), 0, -1) if (each := ".".join(parts[:end])) in blocks)
        inner = name.removeprefix(block)
        if ".resnets." in block:
            _, part, kind = inner.split(".")
            inner = f".{_UNET_RESNET[part]}.{kind}"
        found[f"model.diffusion_model.{blocks[block]}{inner}"] = tensor
    return found


def _unet_blocks(config: Mapping[str, Any]) -> dict[str, str]:
    """Names by those of diffusers, counted as the constructor of UNetModel does (CompVis/latent-diffusion, openaimodel.py)."""
    found, layers, last = dict(_OUTER), config["layers_per_block"], len(config["block_out_channels"]) - 1
    index = 1
    for block, kind in enumerate(config["down_block_types"]):
        for layer in range(layers):
            found[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{index}.0"
            if kind == "CrossAttnDownBlock2D":
                found[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{index}.1"
            index += 1
        if block < last:
            found[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{index}.0.op"
            index += 1
    for block, kind in enumerate(config["up_block_types"]):
        for layer in range(layers + 1):
            index, part = block * (layers + 1) + layer, 1
            found[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{index}.0"
            if kind == "CrossAttnUpBlock2D":
                found[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{index}.1"
                part = 2
            if layer == layers and block < last:
                found[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{index}.{part}.conv"
    return found


def vae_to_ldm(tensors: Tensors) -> dict[str, Array]:
    """The linear layers of the attention become convolutions of 1x1, as they are in such files."""
    found = {}
    for name, tensor in tensors.items():
        new = _replace(name, _VAE_PARTS | _UP)
        found[f"first_stage_model.{new}"] = tensor[:, :, None, None] if "attn_1" in new and tensor.ndim == 2 else tensor
    return found


def clip_to_open_clip(tensors: Tensors, join: Callable[[list[Array]], Array] = np.concatenate) -> dict[str, Array]:
    """The projections of query, key and value become one tensor by `join`, and that of the pooled text is transposed."""
    found = {}
    for name, tensor in tensors.items():
        if ".q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            found[_replace(name, _CLIP_PARTS).replace("self_attn.q_proj.", "attn.in_proj_")] = join(parts)
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.T
        elif "k_proj" not in name and "v_proj" not in name:
            found[_replace(name, _CLIP_PARTS)] = tensor
    return found


def _replace(name: str, parts: Mapping[str, str]) -> str:
    for old, new in parts.items():
        name = name.replace(old, new)
    return name
