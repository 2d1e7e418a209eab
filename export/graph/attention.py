"""Attention as one operator of the graph (`Attention`, ONNX opset 23).

As several operators it materialises its weights, a matrix of tokens by tokens for each head: 1 GB for an image of 64 x 64 latent cells.
"""

from __future__ import annotations

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.onnx import ops

from costroute_rt.error import BundleError
from costroute_rt.export.graph.live_shape import image_of, tokens_of

_UNUSUAL = ("norm_q", "norm_k", "norm_cross", "spatial_norm", "add_k_proj")


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, *, is_causal: bool = False) -> Tensor:
    """query: [batch, tokens, heads * width]; key, value: [batch, other tokens, heads * width] -> as query."""
    return ops.attention(query, key, value, q_num_heads=heads, kv_num_heads=heads, scale=scale, is_causal=is_causal)[0]


class OneOperator:
    """A processor of diffusers' attention layers, between the cells of an image and from them to a text, without masks."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            raise BundleError(None, "its attention takes a mask", "such networks are not supported")
        states = tokens_of(hidden_states) if hidden_states.ndim == 4 else hidden_states
        if attn.group_norm is not None:
            states = attn.group_norm(states.transpose(1, 2)).transpose(1, 2)
        others = states if encoder_hidden_states is None else encoder_hidden_states
        mixed = attn.to_out[0](attend(attn.to_q(states), attn.to_k(others), attn.to_v(others), attn.heads, attn.scale))
        if hidden_states.ndim == 4:
            mixed = image_of(mixed, hidden_states)
        if attn.residual_connection:
            mixed = mixed + hidden_states
        return mixed if attn.rescale_output_factor == 1 else mixed / attn.rescale_output_factor


def use_one_operator(network: nn.Module) -> None:
    """Sets the processor of every attention layer of a diffusers network; raises BundleError for a layer with more parts."""
    for name, layer in network.named_modules():
        if not isinstance(layer, Attention):
            continue
        for part in _UNUSUAL:
            if getattr(layer, part, None) is not None:
                raise BundleError(None, f"its attention layer {name} has a {part}", "such networks are not supported")
        layer.set_processor(OneOperator())
