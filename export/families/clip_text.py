"""The text encoders of Stable Diffusion: transformers' CLIPTextModel and CLIPTextModelWithProjection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from transformers.models.clip.modeling_clip import CLIPAttention

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.export.graph.attention import attend

LAST, PENULTIMATE, POOLED = "last_hidden_state", "penultimate", "pooled"
_FIRST_END = 2
"""The number of the end token in the settings of older models, which is not theirs: their end token is the highest number of a text."""


def make_spec(config: Mapping[str, Any], outputs: Sequence[str]) -> GraphSpec:
    """Inputs and outputs of the graph; outputs: some of LAST, PENULTIMATE and POOLED."""
    tokens, width = int(config["max_position_embeddings"]), int(config["hidden_size"])
    states = TensorSpec("float32", ("batch", tokens, width))
    pooled = TensorSpec("float32", ("batch", int(config["projection_dim"])))
    ids = TensorSpec("int64", ("batch", tokens))
    return GraphSpec({"input_ids": ids}, {name: pooled if name == POOLED else states for name in outputs})


class TextEncoder(nn.Module):
    """The encoder for an export: input_ids: int64[batch, tokens] -> the outputs, float32[batch, tokens, width] or [batch, width].

    Padding is not masked, as in Stable Diffusion. The encoder is changed, and computes nothing outside an export.
    """

    def __init__(self, network: CLIPTextModel | CLIPTextModelWithProjection, outputs: Sequence[str], clip_skip: int = 0) -> None:
        """clip_skip: how many of the last layers the states leave out, besides the one that `penultimate` leaves out."""
        super().__init__()
        self.network, self._outputs, self._skip = network, tuple(outputs), clip_skip
        for layer in network.modules():
            if isinstance(layer, CLIPAttention):
                layer.forward = MethodType(_attend, layer)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        model = self.network.text_model
        states = [model.embeddings.token_embedding(input_ids) + model.embeddings.position_embedding.weight]
        for layer in model.encoder.layers:
            states.append(layer(states[-1], None, None)[0])
        results = {
            PENULTIMATE: lambda: states[-2 - self._skip],
            LAST: lambda: model.final_layer_norm(states[-1 - self._skip]),
            POOLED: lambda: self.network.text_projection(_at_end(model.final_layer_norm(states[-1]), input_ids, model.eos_token_id)),
        }
        return tuple(results[name]() for name in self._outputs)


def run_network(network: Any, given: Mapping[str, Tensor], outputs: Sequence[str], clip_skip: int = 0) -> dict[str, Tensor]:
    """The outputs of an unchanged encoder, as diffusers' pipelines read them."""
    found = network(given["input_ids"], output_hidden_states=True)
    results = {
        PENULTIMATE: lambda: found.hidden_states[-2 - clip_skip],
        LAST: lambda: network.text_model.final_layer_norm(found.hidden_states[-1 - clip_skip]),
        POOLED: lambda: found.text_embeds,
    }
    return {name: results[name]() for name in outputs}


def _at_end(states: Tensor, input_ids: Tensor, end: int) -> Tensor:
    """The state of each text's end token: [batch, width]."""
    numbers = input_ids.to(torch.int32)
    place = numbers.argmax(-1) if end == _FIRST_END else (numbers == end).to(torch.int32).argmax(-1)
    is_end = (torch.arange(states.shape[1])[None] == place[:, None]).to(states.dtype)
    return (states * is_end[:, :, None]).sum(1)


def _attend(layer: CLIPAttention, hidden_states: Tensor, *masks: Any, **more: Any) -> tuple[Tensor, None]:
    """Each token reads itself and those before it."""
    query, key, value = layer.q_proj(hidden_states), layer.k_proj(hidden_states), layer.v_proj(hidden_states)
    return layer.out_proj(attend(query, key, value, layer.num_heads, layer.scale, is_causal=True)), None
