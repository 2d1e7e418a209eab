"""The UNet of a single file: its settings as shapes tell them, and the names of its parameters in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Region
from costroute_rt.export.checkpoint.source.parameter.layer import Parameters
from costroute_rt.export.checkpoint.source.single_file.stored import MOST, Stored

PREFIX = "model.diffusion_model."
_HEAD_WIDTH = 64
"""Of attention in Stable Diffusion 2.x and XL; 1.x has 8 heads of any width."""
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
_OUTER = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip

_USUAL: Mapping[str, Any] = {
    "layers_per_block": 2, "block_out_channels": [320, 640, 1280, 1280], "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}  # fmt: skip
"""The class's own settings, which config.json may leave out."""


def unet_settings(stored: Stored) -> dict[str, Any]:
    """The settings of UNet2DConditionModel that shapes tell; raises BundleError for a network that is built in another way."""
    blocks = _down_blocks(stored)
    widths, depths = [block[0][0] for block in blocks], [block[0][1] for block in blocks]
    if "middle_block.1.proj_in.weight" not in stored or any(len(set(block)) > 1 for block in blocks):
        problem = "its UNet is a reduced one, such as those of SSD-1B, Segmind Vega or KOALA"
        raise BundleError(stored.path, problem, "use its diffusers folder, which has the settings")
    is_linear = len(stored.tensors["middle_block.1.proj_in.weight"].shape) == 2
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    found: dict[str, Any] = {
        "block_out_channels": widths, "layers_per_block": _common([len(block) for block in blocks]), "down_block_types": down,
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in depths[::-1]],
        "transformer_layers_per_block": _common([depth or 1 for depth in depths]), "use_linear_projection": is_linear,
        "cross_attention_dim": stored.axis("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1),
        "in_channels": stored.axis("input_blocks.0.0.weight", 1), "out_channels": stored.axis("out.2.weight", 0),
        "attention_head_dim": [max(1, width // _HEAD_WIDTH) for width in widths] if is_linear else 8,
    }  # fmt: skip
    if "label_emb.0.0.weight" in stored:
        found["projection_class_embeddings_input_dim"] = stored.axis("label_emb.0.0.weight", 1)
    return found


def _down_blocks(stored: Stored) -> list[list[tuple[int, int]]]:
    """Width and number of transformer blocks of each layer, by block; a layer that halves the size ends a block."""
    blocks: list[list[tuple[int, int]]] = [[]]
    for index in range(1, MOST):
        name = f"input_blocks.{index}"
        if f"{name}.0.op.weight" in stored:
            blocks.append([])
        elif f"{name}.0.out_layers.3.weight" in stored:
            depth = stored.count(name + ".1.transformer_blocks.{}.attn1.to_q.weight")
            blocks[-1].append((stored.axis(f"{name}.0.out_layers.3.weight", 0), depth))
        else:
            break
    if not all(blocks):
        raise BundleError(stored.path, "its UNet has an empty block", "download the checkpoint again")
    return blocks


def _common(values: list[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else values


def find_unet(stored: Stored, wanted: Parameters, settings: Mapping[str, Any]) -> dict[str, Region]:
    """The regions of the wanted parameters that the file has; raises BundleError if it has others of a UNet."""
    names = {name: stored_name(name, settings) for name in wanted}
    others = stored.tensors.keys() - set(names.values())
    if others:
        problem = f"tensors of its UNet are unknown ({len(others)}), such as {stored.prefix}{min(others)[:100]}"
        raise BundleError(stored.path, problem, "use its diffusers folder")
    return {name: stored.tensors[key] for name, key in names.items() if key in stored}


def original_name(layer: str, settings: Mapping[str, Any]) -> str | None:
    """The name in such files, dotted, of a layer of a UNet2DConditionModel with these settings; None if it has none."""
    if layer in _OUTER:
        return _OUTER[layer]
    is_inner = layer.startswith(("down_blocks.", "mid_block.", "up_blocks."))
    return stored_name(f"{layer}.weight", {**_USUAL, **settings}).removesuffix(".weight") if is_inner else None


def stored_name(name: str, settings: Mapping[str, Any]) -> str:
    """The name in the file of a parameter, without the prefix."""
    outer, _, kind = name.rpartition(".")
    if outer in _OUTER:
        return f"{_OUTER[outer]}.{kind}"
    if name.startswith("mid_block."):
        _, part, index, *rest = name.split(".")
        return f"middle_block.{1 if part == 'attentions' else 2 * int(index)}.{_inner(part, rest)}"
    side, block_text, part, layer_text, *rest = name.split(".")
    block, layer = int(block_text), int(layer_text)
    given = settings["layers_per_block"]
    layers = given if isinstance(given, list) else [given] * len(settings["block_out_channels"])
    if side == "down_blocks":
        first = 1 + sum(count + 1 for count in layers[:block])
        return (
            f"input_blocks.{first + layers[block]}.0.op.{kind}"
            if part == "downsamplers"
            else _at("input_blocks", first + layer, part, rest)
        )
    counts = [count + 1 for count in layers[::-1]]
    first, last = sum(counts[:block]), sum(counts[: block + 1]) - 1
    if part == "upsamplers":
        return f"output_blocks.{last}.{2 if settings['up_block_types'][block].startswith('CrossAttn') else 1}.conv.{kind}"
    return _at("output_blocks", first + layer, part, rest)


def _at(blocks: str, index: int, part: str, rest: list[str]) -> str:
    return f"{blocks}.{index}.{1 if part == 'attentions' else 0}.{_inner(part, rest)}"


def _inner(part: str, rest: list[str]) -> str:
    """The end of a name, inside a transformer or a residual block."""
    return ".".join(rest) if part == "attentions" else ".".join([_RESNET[rest[0]], *rest[1:]])
