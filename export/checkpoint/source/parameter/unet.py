"""The parameters of diffusers' UNet2DConditionModel, for the blocks and inputs that Stable Diffusion and its relatives have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costroute_rt.export.checkpoint.source.parameter.layer import Parameters, convolution, linear, norm, resnet
from costroute_rt.export.checkpoint.source.parameter.settings import MOST_LAYERS, Settings

_WIDTHS = (320, 640, 1280, 1280)
_DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
_MIDDLE = "UNetMidBlock2DCrossAttn"
_DEPTHS, _UP_DEPTHS = "transformer_layers_per_block", "reverse_transformer_layers_per_block"
_MOST_DEPTH = 64
_ONLY = {
    "attention_type": "default", "class_embed_type": None, "class_embeddings_concat": False, "cross_attention_norm": None,
    "dual_cross_attention": False, "num_attention_heads": None, "num_class_embeds": None, "only_cross_attention": False,
    "resnet_time_scale_shift": "default", "time_embedding_act_fn": None, "time_embedding_type": "positional", "timestep_post_act": None,
}  # fmt: skip
"""Settings that change the parameters or the inputs, with the only value that is supported."""
_FLAGS = ("center_input_sample", "flip_sin_to_cos", "resnet_skip_time_act", "upcast_attention")
_NUMBERS = ("freq_shift", "downsample_padding", "mid_block_scale_factor", "norm_eps", "resnet_out_scale_factor")
ACTIVATIONS = ("silu", "swish", "mish", "gelu", "relu")
"""Those of diffusers."""


def unet_parameters(settings: Settings) -> Parameters:
    """The parameters by name; raises BundleError for settings that are wrong or not supported."""
    settings.only(**_ONLY)
    settings.numbers(*_NUMBERS)
    settings.numbers("dropout", most=1)
    settings.choice("act_fn", *ACTIVATIONS)
    for key in _FLAGS:
        settings.choice(key, True, False, None)
    if settings.values.get("sample_size") is not None:
        settings.size("sample_size")
    found = _Unet.read(settings)
    settings.divisor("norm_num_groups", 32, found.widths)
    return found.parameters(settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unet:
    """What the blocks are made of; every list has an entry for each block on the way down."""

    widths: tuple[int, ...]
    down: tuple[str, ...]
    up: tuple[str, ...]
    layers: tuple[int, ...]
    depths: tuple[tuple[int, ...], ...]
    up_depths: tuple[tuple[int, ...], ...]
    """In the order of the blocks on the way up."""
    text: tuple[int, ...]
    """Widths of the text that the blocks take."""
    time: int
    is_linear: bool
    """Whether the projections around the transformer blocks are linear layers instead of convolutions."""

    @classmethod
    def read(cls, settings: Settings) -> _Unet:
        widths = settings.widths("block_out_channels", _WIDTHS)
        blocks = len(widths)
        layers = settings.each("layers_per_block", 2, blocks, MOST_LAYERS)
        down = settings.types("down_block_types", _DOWN, ("DownBlock2D", "CrossAttnDownBlock2D"))
        up = settings.types("up_block_types", _UP, ("UpBlock2D", "CrossAttnUpBlock2D"))
        for key, types in (("down_block_types", down), ("up_block_types", up)):
            if len(types) != blocks:
                settings.refuse(key, f"{blocks} blocks, as block_out_channels has")
        _check_heads(settings, widths)
        depths, up_depths = _depths(settings, layers, down, up)
        return cls(
            widths=widths, down=down, up=up, layers=layers, depths=depths, up_depths=up_depths,
            text=settings.each("cross_attention_dim", 1280, blocks),
            time=settings.optional("time_embedding_dim") or 4 * widths[0],
            is_linear=settings.flag("use_linear_projection", False),
        )  # fmt: skip

    def parameters(self, settings: Settings) -> Parameters:
        first = self.widths[0]
        found = convolution("conv_in", first, settings.whole("in_channels", 4), settings.whole("conv_in_kernel", 3, 15))
        found |= linear("time_embedding.linear_1", self.time, first) | linear("time_embedding.linear_2", self.time, self.time)
        found |= self.conditions(settings)
        for block in range(len(self.widths)):
            found |= self.down_block(block)
        found |= self.middle(settings)
        for block in range(len(self.widths)):
            found |= self.up_block(block)
        found |= norm("conv_norm_out", first)
        return found | convolution("conv_out", settings.whole("out_channels", 4), first, settings.whole("conv_out_kernel", 3, 15))

    def conditions(self, settings: Settings) -> Parameters:
        """The embeddings of the guidance scale, of pooled text and image sizes, and of wider text."""
        found: Parameters = {}
        guidance = settings.optional("time_cond_proj_dim")
        if guidance is not None:
            found |= linear("time_embedding.cond_proj", self.widths[0], guidance, has_bias=False)
        if settings.values.get("addition_embed_type") is not None:
            settings.only(addition_embed_type="text_time")
            taken = settings.whole("projection_class_embeddings_input_dim", 0)
            found |= linear("add_embedding.linear_1", self.time, taken) | linear("add_embedding.linear_2", self.time, self.time)
        if settings.values.get("encoder_hid_dim_type") is not None:
            settings.only(encoder_hid_dim_type="text_proj")
        wider = settings.optional("encoder_hid_dim")
        return found if wider is None else found | linear("encoder_hid_proj", self.text[0], wider)

    def down_block(self, block: int) -> Parameters:
        name, width, found = f"down_blocks.{block}", self.widths[block], Parameters()
        for layer in range(self.layers[block]):
            taken = self.widths[max(block - 1, 0)] if layer == 0 else width
            found |= resnet(f"{name}.resnets.{layer}", width, taken, self.time)
            if self.down[block] == "CrossAttnDownBlock2D":
                found |= self.attention(f"{name}.attentions.{layer}", width, self.text[block], self.depths[block][layer])
        is_last = block == len(self.widths) - 1
        return found if is_last else found | convolution(f"{name}.downsamplers.0.conv", width, width)

    def middle(self, settings: Settings) -> Parameters:
        kind, width = settings.values.get("mid_block_type", _MIDDLE), self.widths[-1]
        if kind is None:
            return {}
        found = resnet("mid_block.resnets.0", width, width, self.time)
        if kind == "UNetMidBlock2D":
            return found
        settings.only(mid_block_type=_MIDDLE)
        found |= self.attention("mid_block.attentions.0", width, self.text[-1], self.depths[-1][0])
        return found | resnet("mid_block.resnets.1", width, width, self.time)

    def up_block(self, block: int) -> Parameters:
        name, last, found = f"up_blocks.{block}", len(self.widths) - 1, Parameters()
        down = last - block
        width, before, skipped = self.widths[down], self.widths[min(down + 1, last)], self.widths[max(down - 1, 0)]
        layers = self.layers[down] + 1
        for layer in range(layers):
            taken = (before if layer == 0 else width) + (skipped if layer == layers - 1 else width)
            found |= resnet(f"{name}.resnets.{layer}", width, taken, self.time)
            if self.up[block] == "CrossAttnUpBlock2D":
                found |= self.attention(f"{name}.attentions.{layer}", width, self.text[down], self.up_depths[block][layer])
        return found if block == last else found | convolution(f"{name}.upsamplers.0.conv", width, width)

    def attention(self, name: str, width: int, text: int, depth: int) -> Parameters:
        """Transformer2DModel of diffusers."""
        project = linear if self.is_linear else lambda name, given, taken: convolution(name, given, taken, 1)
        found = norm(f"{name}.norm", width) | project(f"{name}.proj_in", width, width)
        for index in range(depth):
            found |= _transformer_block(f"{name}.transformer_blocks.{index}", width, text)
        return found | project(f"{name}.proj_out", width, width)


def _check_heads(settings: Settings, widths: tuple[int, ...]) -> None:
    """Raises BundleError if the heads of a block do not divide its width; diffusers calls their number `attention_head_dim`."""
    key = "attention_head_dim"
    for heads, width in zip(settings.each(key, 8, len(widths)), widths, strict=True):
        if width % heads:
            settings.refuse(key, f"numbers of heads that divide {', '.join(map(str, widths))}")


def _depths(
    settings: Settings, layers: tuple[int, ...], down: tuple[str, ...], up: tuple[str, ...]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Transformer blocks of each layer on the way down, and on the way up."""
    blocks, each = len(layers), settings.values.get(_DEPTHS, 1)
    each = each if isinstance(each, list | tuple) else [each] * blocks
    given = settings.values.get(_UP_DEPTHS)
    key, up_each = (_DEPTHS, each[::-1]) if given is None else (_UP_DEPTHS, given)
    if given is None and any(isinstance(entry, list | tuple) for entry in each):
        settings.refuse(_DEPTHS, f"single numbers, as there is no {_UP_DEPTHS}")
    up_layers = [count + 1 for count in reversed(layers)]
    return _depths_of(settings, _DEPTHS, each, layers, down), _depths_of(settings, key, up_each, up_layers, up)


def _depths_of(settings: Settings, key: str, each: object, layers: Sequence[int], types: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """each: for each block a number, or a list of one for each layer; what it is does not matter for a block without attention."""
    if not isinstance(each, list | tuple) or len(each) != len(layers):
        settings.refuse(key, f"a whole number, or a list of {len(layers)}")
    found = []
    for entry, count, kind in zip(each, layers, types, strict=True):
        depths = entry if isinstance(entry, list | tuple) else [entry] * count
        least = 1 if kind.startswith("CrossAttn") else 0
        if len(depths) != count or not all(type(depth) is int and least <= depth <= _MOST_DEPTH for depth in depths):
            settings.refuse(key, f"whole numbers from 1 to {_MOST_DEPTH}, one for each block or layer")
        found.append(tuple(depths))
    return tuple(found)


def _transformer_block(name: str, width: int, text: int) -> Parameters:
    """BasicTransformerBlock of diffusers: self-attention, cross-attention and a gated feed-forward network."""
    found: Parameters = {}
    for index, taken in (("1", width), ("2", text)):
        found |= norm(f"{name}.norm{index}", width) | linear(f"{name}.attn{index}.to_q", width, width, has_bias=False)
        for part in ("to_k", "to_v"):
            found |= linear(f"{name}.attn{index}.{part}", width, taken, has_bias=False)
        found |= linear(f"{name}.attn{index}.to_out.0", width, width)
    found |= norm(f"{name}.norm3", width) | linear(f"{name}.ff.net.0.proj", 8 * width, width)
    return found | linear(f"{name}.ff.net.2", width, 4 * width)
