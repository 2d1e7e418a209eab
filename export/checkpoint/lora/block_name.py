"""Names of a UNet's layers in the original numbering of blocks (LDM, SGM), which kohya's scripts use for SDXL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_SINGLE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_BLOCK = re.compile(
    r"(?P<side>down|up)_blocks\.(?P<block>\d+)\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<index>\d+)\.(?P<rest>.+)"
)
_MIDDLE = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.(?P<index>\d+)\.(?P<rest>.+)")


def original_name(layer: str, config: Mapping[str, Any]) -> str | None:
    """The original name of a layer of a UNet2DConditionModel, both dotted; None if it has none.

    config: of the UNet. Blocks are counted through all levels: each has `layers_per_block` of them and one that changes the size
    (downwards; upwards each has one more, and the change of size belongs to the last).
    """
    if layer in _SINGLE:
        return _SINGLE[layer]
    if match := _MIDDLE.fullmatch(layer):
        number = 1 if match["kind"] == "attentions" else 2 * int(match["index"])
        return f"middle_block.{number}.{_inner(match)}"
    match, per_level = _BLOCK.fullmatch(layer), config.get("layers_per_block")
    if match is None or not isinstance(per_level, int):
        return None
    first, kind, index = int(match["block"]) * (per_level + 1), match["kind"], int(match["index"])
    if kind == "downsamplers":
        return f"input_blocks.{first + per_level + 1}.0.op"
    if kind == "upsamplers":
        types = config.get("up_block_types") or ()
        has_attention = int(match["block"]) < len(types) and "CrossAttn" in str(types[int(match["block"])])
        return f"output_blocks.{first + per_level}.{1 + has_attention}.conv"
    part, inner = int(kind == "attentions"), _inner(match)
    return (
        f"input_blocks.{first + index + 1}.{part}.{inner}" if match["side"] == "down" else f"output_blocks.{first + index}.{part}.{inner}"
    )


def _inner(match: re.Match[str]) -> str:
    """The rest of the name: resnets have other names inside, attentions the same."""
    return _RESNET.get(match["rest"], match["rest"]) if match["kind"] == "resnets" else match["rest"]
