"""The text encoders of a single file, in the layouts of transformers and of OpenCLIP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from costroute_rt.export.checkpoint.source.network import Region
from costroute_rt.export.checkpoint.source.parameter.layer import Parameters
from costroute_rt.export.checkpoint.source.single_file.stored import Stored, third

_HEAD_WIDTH = 64
"""Of attention in all published text encoders of CLIP."""
_TOKENS, _POSITIONS = "embeddings.token_embedding.weight", "embeddings.position_embedding.weight"
_OUTER = {
    f"text_model.{_TOKENS}": "token_embedding.weight", f"text_model.{_POSITIONS}": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight", "text_model.final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}  # fmt: skip
_INNER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_USED_LAYERS = 23
"""Of Stable Diffusion 2.x; most files have one more."""
_FUSED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def clip_settings(stored: Stored) -> dict[str, Any]:
    """The settings of CLIPTextModel that shapes tell. stored: tensors without the prefix of `embeddings`."""
    settings = _settings(stored, _TOKENS, _POSITIONS, "encoder.layers.0.mlp.fc1.weight")
    return settings | {"num_hidden_layers": stored.count("encoder.layers.{}.mlp.fc1.weight")}


def find_clip(stored: Stored, wanted: Parameters) -> dict[str, Region]:
    names = {name: name.removeprefix("text_model.") for name in wanted}
    return {name: stored.tensors[key] for name, key in names.items() if key in stored}


def open_clip_settings(stored: Stored, *, is_sd2: bool) -> dict[str, Any]:
    """The settings that shapes tell. is_sd2: leaves the last layer out, which Stable Diffusion 2.x does not use, and no projection."""
    settings = _settings(stored, "token_embedding.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight")
    layers = stored.count("transformer.resblocks.{}.mlp.c_fc.weight")
    if is_sd2:
        return settings | {"num_hidden_layers": layers if layers == _USED_LAYERS else layers - 1}
    return settings | {"num_hidden_layers": layers, "projection_dim": stored.axis("text_projection", 1)}


def find_open_clip(stored: Stored, wanted: Parameters) -> dict[str, Region]:
    found = {name: _open_clip_region(stored, name) for name in wanted}
    return {name: region for name, region in found.items() if region is not None}


def _settings(stored: Stored, tokens: str, positions: str, inner: str) -> dict[str, Any]:
    width = stored.axis(tokens, 1)
    return {
        "vocab_size": stored.axis(tokens, 0), "hidden_size": width, "max_position_embeddings": stored.axis(positions, 0),
        "intermediate_size": stored.axis(inner, 0), "num_attention_heads": max(1, width // _HEAD_WIDTH),
    }  # fmt: skip


def _open_clip_region(stored: Stored, name: str) -> Region | None:
    """Where OpenCLIP has a parameter: the three projections of attention are one tensor, and that of the pooled text is transposed."""
    if name in _OUTER:
        region = stored.tensors.get(_OUTER[name])
        return replace(region, is_transposed=not region.is_transposed) if region and name == "text_projection.weight" else region
    layer, _, rest = name.removeprefix("text_model.encoder.layers.").partition(".")
    part, _, kind = rest.rpartition(".")
    place = f"transformer.resblocks.{layer}"
    if part in _FUSED:
        region = stored.tensors.get(f"{place}.attn.in_proj_{kind}")
        return third(region, _FUSED.index(part)) if region else None
    return stored.tensors.get(f"{place}.{_INNER[part]}.{kind}")
