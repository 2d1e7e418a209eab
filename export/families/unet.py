"""The denoiser of Stable Diffusion 1.x, 2.x and XL, and of latent consistency models: diffusers' UNet2DConditionModel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from costroute_rt.engines.bundle.manifest import IMAGE_SIZE, GraphSpec, TensorSpec
from costroute_rt.error import BundleError
from costroute_rt.export.families.layer import upsample, use_live_shapes
from costroute_rt.export.graph.compose import GUIDANCE
from costroute_rt.export.graph.live_shape import repeat_row

_STATES, _POOLED = "encoder_hidden_states", "text_embeds"
_UNSUPPORTED = ("class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type", "time_embedding_act_fn")
_ADDITIONS = (None, "text_time")
_LONGEST_PERIOD, _GUIDANCE_SCALE = 10000.0, 1000.0


def make_spec(config: Mapping[str, Any], text_widths: Sequence[int]) -> GraphSpec:
    """Inputs and outputs of the graph; raises BundleError for a kind of UNet that is not supported.

    text_widths: of the states of each text encoder, which the graph joins along their width, as SDXL does.
    """
    odd = [key for key in _UNSUPPORTED if config.get(key) is not None]
    addition = config.get("addition_embed_type")
    if odd or addition not in _ADDITIONS:
        found = f"{odd[0]} {config[odd[0]]!r}" if odd else f"addition_embed_type {addition!r}"
        raise BundleError(None, f"the denoiser has the {found}", "use a Stable Diffusion 1.x, 2.x or XL model")
    names = [_STATES, *(f"{_STATES}_{index}" for index in range(2, len(text_widths) + 1))]
    sample = TensorSpec("float32", ("batch", int(config["in_channels"]), "height", "width"))
    inputs = {"sample": sample, "timestep": TensorSpec("float32", ("batch",))}
    inputs |= {name: TensorSpec("float32", ("batch", "tokens", width)) for name, width in zip(names, text_widths, strict=True)}
    if addition == "text_time":
        pooled = int(config["projection_class_embeddings_input_dim"]) - 6 * int(config["addition_time_embed_dim"])
        inputs |= {_POOLED: TensorSpec("float32", ("batch", pooled)), IMAGE_SIZE: TensorSpec("int64", (2,))}
    if config.get("time_cond_proj_dim"):
        inputs[GUIDANCE] = TensorSpec("float32", ("batch",))
    return GraphSpec(inputs, {"out_sample": TensorSpec("float32", ("batch", int(config["out_channels"]), "height", "width"))})


class Denoiser(nn.Module):
    """The UNet for an export: the inputs of `make_spec` -> out_sample: float32[batch, channels, height, width].

    Sides of the latent may be any number of cells. The UNet is changed, and computes nothing outside an export.
    """

    def __init__(self, network: UNet2DConditionModel, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self._names = network, tuple(names)
        use_live_shapes(network)
        network.get_time_embed = _time_embedding(network)
        network.get_aug_embed = _size_embedding(network)
        self._sizes: list[Tensor] = []
        for block in network.down_blocks:
            block.register_forward_pre_hook(self._note_size, with_kwargs=True)
        for index, block in enumerate(network.up_blocks):
            for layer in block.upsamplers or ():
                layer.forward = partial(self._upsample, layer, len(network.down_blocks) - 2 - index)

    def forward(self, *values: Tensor) -> Tensor:
        self._sizes.clear()
        given = dict(zip(self._names, values, strict=True))
        return _call(self.network, given, given.get(IMAGE_SIZE))

    def _note_size(self, block: nn.Module, args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        self._sizes.append(given["hidden_states"])

    def _upsample(self, layer: Upsample2D, level: int, hidden_states: Tensor, output_size: Any = None) -> Tensor:
        """To the size that a block of the way down began with: an odd side was rounded up when it was halved."""
        return upsample(layer, hidden_states, like=self._sizes[level])


def run_network(network: UNet2DConditionModel, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of an unchanged UNet for the inputs of `make_spec`, as diffusers' pipelines call it."""
    ids = None
    if IMAGE_SIZE in given:  # the original size and the target are the image's, and nothing is cropped
        height, width = (int(side) for side in given[IMAGE_SIZE])
        ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32).repeat(len(given["sample"]), 1)
    return {"out_sample": _call(network, given, ids)}


def _call(network: UNet2DConditionModel, given: Mapping[str, Tensor], time_ids: Tensor | None) -> Tensor:
    states = [value for name, value in given.items() if name.startswith(_STATES)]
    added = {"text_embeds": given[_POOLED], "time_ids": time_ids} if _POOLED in given else None
    guided = guidance_embedding(given[GUIDANCE], network.config.time_cond_proj_dim) if GUIDANCE in given else None
    text = states[0] if len(states) == 1 else torch.cat(states, dim=-1)
    out = network(given["sample"], given["timestep"], text, timestep_cond=guided, added_cond_kwargs=added, return_dict=False)
    return out[0]


def guidance_embedding(scale: Tensor, width: int) -> Tensor:
    """scale: [batch] -> [batch, width], as diffusers' LatentConsistencyModelPipeline.get_guidance_scale_embedding(scale - 1)."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32) * -(math.log(_LONGEST_PERIOD) / (half - 1))
    angles = ((scale - 1) * _GUIDANCE_SCALE)[:, None] * torch.exp(exponents)[None]
    return nn.functional.pad(torch.cat([torch.sin(angles), torch.cos(angles)], dim=1), (0, width % 2))


def _time_embedding(network: UNet2DConditionModel) -> Any:
    """As the network's own, for one timestep per image."""

    def embed(sample: Tensor, timestep: Tensor) -> Tensor:
        return network.time_proj(timestep)

    return embed


def _size_embedding(network: UNet2DConditionModel) -> Any:
    """As the network's own, for one size of all images."""

    def embed(emb: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: Mapping[str, Tensor] | None) -> Tensor | None:
        if added_cond_kwargs is None:
            return None
        pooled, size = added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"]
        numbers = torch.cat([size, torch.zeros(2, dtype=size.dtype), size]).to(torch.float32)
        row = network.add_time_proj(numbers).flatten()[None]
        return network.add_embedding(torch.cat([pooled, repeat_row(row, pooled)], dim=-1))

    return embed
