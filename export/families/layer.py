"""Layers that the networks of diffusers share, changed so that a trace at one size gives a graph for every size."""

from __future__ import annotations

from types import MethodType
from typing import Any

from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from costroute_rt.error import BundleError
from costroute_rt.export.graph.attention import use_one_operator
from costroute_rt.export.graph.live_shape import crop, double, image_of, tokens_of


def use_live_shapes(network: nn.Module) -> None:
    """Changes a network, which then computes nothing outside an export; raises BundleError for layers of an unusual kind."""
    use_one_operator(network)
    for layer in network.modules():
        if isinstance(layer, Transformer2DModel):
            layer._operate_on_continuous_inputs = MethodType(_to_tokens, layer)
            layer._get_output_for_continuous_inputs = MethodType(_to_image, layer)
        elif isinstance(layer, Upsample2D):
            layer.forward = MethodType(upsample, layer)
        elif isinstance(layer, nn.Upsample):
            if layer.mode != "nearest" or layer.scale_factor != 2:
                raise BundleError(None, f"it upsamples by {layer.scale_factor} ({layer.mode})", "only networks that double are supported")
            layer.forward = double


def _to_tokens(layer: Transformer2DModel, hidden_states: Tensor) -> tuple[Tensor, int]:
    states = layer.norm(hidden_states)
    states = layer.proj_in(tokens_of(states)) if layer.use_linear_projection else tokens_of(layer.proj_in(states))
    return states, states.shape[-1]


def _to_image(layer: Transformer2DModel, hidden_states: Tensor, residual: Tensor, *sizes: int, **more: int) -> Tensor:
    if layer.use_linear_projection:
        return image_of(layer.proj_out(hidden_states), residual) + residual
    return layer.proj_out(image_of(hidden_states, residual)) + residual


def upsample(layer: Upsample2D, hidden_states: Tensor, output_size: Any = None, *, like: Tensor | None = None) -> Tensor:
    """As the layer's own, for an output of twice the size, or a row or column less, as in `like`.

    Interpolation to 2n - 1 takes the same neighbours as to 2n.
    """
    if layer.norm is not None or layer.use_conv_transpose or not layer.interpolate or not layer.use_conv:
        raise BundleError(None, "it upsamples in another way than Stable Diffusion", "such networks are not supported")
    image = double(hidden_states)
    return (layer.conv if layer.name == "conv" else layer.Conv2d_0)(image if like is None else crop(image, like))
