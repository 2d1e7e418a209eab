"""The VAE of a single file: its settings as shapes tell them, and the names of its parameters in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costroute_rt.export.checkpoint.source.network import Region
from costroute_rt.export.checkpoint.source.parameter.layer import Parameters
from costroute_rt.export.checkpoint.source.single_file.stored import Stored

PREFIX = "first_stage_model."
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def vae_settings(stored: Stored) -> dict[str, Any]:
    """The settings of AutoencoderKL that shapes tell."""
    blocks = max(1, stored.count("encoder.down.{}.block.0.conv1.weight"))
    return {
        "block_out_channels": [stored.axis(f"encoder.down.{block}.block.0.conv1.weight", 0) for block in range(blocks)],
        "layers_per_block": stored.count("encoder.down.0.block.{}.conv1.weight"),
        "down_block_types": ["DownEncoderBlock2D"] * blocks, "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "in_channels": stored.axis("encoder.conv_in.weight", 1), "out_channels": stored.axis("decoder.conv_out.weight", 0),
        "latent_channels": stored.axis("decoder.conv_in.weight", 1),
    }  # fmt: skip


def find_vae(stored: Stored, wanted: Parameters, settings: Mapping[str, Any]) -> dict[str, Region]:
    """The regions of the wanted parameters that the file has."""
    blocks = len(settings["block_out_channels"])
    names = {name: stored_name(name, blocks) for name in wanted}
    return {name: stored.tensors[key] for name, key in names.items() if key in stored}


def stored_name(name: str, blocks: int) -> str:
    """The name in the file of a parameter, without the prefix."""
    side, _, inner = name.partition(".")
    if inner.startswith("mid_block."):
        return f"{side}.{_middle(inner.removeprefix('mid_block.'))}"
    if not inner.startswith(("down_blocks.", "up_blocks.")):
        return name.replace("conv_norm_out", "norm_out")
    way, block, part, layer, *rest = inner.split(".")
    place = f"{side}.down.{block}" if way == "down_blocks" else f"{side}.up.{blocks - 1 - int(block)}"
    if part in ("downsamplers", "upsamplers"):
        return f"{place}.{part.removesuffix('rs')}.{'.'.join(rest)}"
    return f"{place}.block.{layer}.{'.'.join(rest)}".replace("conv_shortcut", "nin_shortcut")


def _middle(inner: str) -> str:
    part, index, *rest = inner.split(".")
    if part == "resnets":
        return f"mid.block_{int(index) + 1}.{'.'.join(rest)}"
    return f"mid.attn_1.{_ATTENTION['.'.join(rest[:-1])]}.{rest[-1]}"
