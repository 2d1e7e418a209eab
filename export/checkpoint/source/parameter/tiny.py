"""The parameters of the decoder of diffusers' AutoencoderTiny."""

from __future__ import annotations

from costroute_rt.export.checkpoint.source.parameter.layer import Parameters, convolution
from costroute_rt.export.checkpoint.source.parameter.settings import MOST_BLOCKS, MOST_LAYERS, Settings

BLOCKS, WIDTHS = (3, 3, 3, 1), (64, 64, 64, 64)
"""Those of TAESD, and the class's own."""


def tiny_decoder_parameters(settings: Settings) -> Parameters:
    """The parameters by name, without those of the encoder; raises BundleError for settings that are wrong or not supported."""
    widths, width = settings.widths("decoder_block_out_channels", WIDTHS), settings.whole("latent_channels", 4)
    layers = settings.each("num_decoder_blocks", BLOCKS, len(widths), MOST_LAYERS)
    if len(set(widths)) > 1:
        settings.refuse("decoder_block_out_channels", f"a list of 1 to {MOST_BLOCKS} equal widths")
    found = convolution("decoder.layers.0", widths[0], width)
    place = 2  # after the first convolution and its activation
    for block, count in enumerate(layers):
        for _ in range(count):
            for layer in (0, 2, 4):
                found |= convolution(f"decoder.layers.{place}.conv.{layer}", widths[0], widths[0])
            place += 1
        if block < len(layers) - 1:
            found[f"decoder.layers.{place + 1}.weight"] = (widths[0], widths[0], 3, 3)  # after the upsampling
            place += 2
    return found | convolution(f"decoder.layers.{place}", settings.whole("out_channels", 3), widths[0])
