"""The parameters of diffusers' AutoencoderKL."""

from __future__ import annotations

from costroute_rt.export.checkpoint.source.parameter.layer import Parameters, convolution, linear, norm, resnet
from costroute_rt.export.checkpoint.source.parameter.settings import MOST_LAYERS, Settings
from costroute_rt.export.checkpoint.source.parameter.unet import ACTIVATIONS


def vae_parameters(settings: Settings) -> Parameters:
    """The parameters by name; raises BundleError for settings that are wrong or not supported."""
    widths, layers = settings.widths("block_out_channels", (64,)), settings.whole("layers_per_block", 1, MOST_LAYERS)
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if len(settings.types(key, (kind,), (kind,))) != len(widths):
            settings.refuse(key, f"{len(widths)} blocks, as block_out_channels has")
    settings.numbers("scaling_factor")
    settings.choice("act_fn", *ACTIVATIONS)
    settings.only(latents_mean=None, latents_std=None)
    settings.divisor("norm_num_groups", 32, widths)
    settings.size("sample_size")
    latent = settings.whole("latent_channels", 4)
    has_attention = settings.flag("mid_block_add_attention", True)
    found = _half("encoder", settings.whole("in_channels", 3), 2 * latent, widths, layers, has_attention)
    found |= _half("decoder", latent, settings.whole("out_channels", 3), widths[::-1], layers + 1, has_attention)
    if settings.flag("use_quant_conv", True):
        found |= convolution("quant_conv", 2 * latent, 2 * latent, 1)
    return found | convolution("post_quant_conv", latent, latent, 1) if settings.flag("use_post_quant_conv", True) else found


def _half(name: str, taken: int, given: int, widths: tuple[int, ...], layers: int, has_attention: bool) -> Parameters:
    """The encoder or the decoder. widths: in the order of its blocks."""
    is_encoder = name == "encoder"
    blocks, sampler = ("down_blocks", "downsamplers") if is_encoder else ("up_blocks", "upsamplers")
    found = convolution(f"{name}.conv_in", widths[0], taken)
    for block, width in enumerate(widths):
        before = widths[max(block - 1, 0)]
        for layer in range(layers):
            found |= resnet(f"{name}.{blocks}.{block}.resnets.{layer}", width, before if layer == 0 else width)
        if block < len(widths) - 1:
            found |= convolution(f"{name}.{blocks}.{block}.{sampler}.0.conv", width, width)
    found |= _middle(f"{name}.mid_block", widths[-1] if is_encoder else widths[0], has_attention)
    return found | norm(f"{name}.conv_norm_out", widths[-1]) | convolution(f"{name}.conv_out", given, widths[-1])


def _middle(name: str, width: int, has_attention: bool) -> Parameters:
    found = resnet(f"{name}.resnets.0", width, width) | resnet(f"{name}.resnets.1", width, width)
    if not has_attention:
        return found
    found |= norm(f"{name}.attentions.0.group_norm", width)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        found |= linear(f"{name}.attentions.0.{part}", width, width)
    return found
