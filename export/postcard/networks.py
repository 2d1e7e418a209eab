"""The networks of the postcard family: standard diffusers and transformers classes, small enough to train on a CPU.

image float[B, 3, 256, 256] in -1..1 <-> latent float[B, 16, 16, 16], about zero mean and unit variance per channel.
text: int64[B, 64] token ids -> states float[B, 64, 160].
"""

from typing import Any

from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel

LATENT_CHANNELS = 16
TEXT_WIDTH, TEXT_LAYERS = 160, 6
MAX_TOKENS = 64
VAE_WIDTHS = (16, 16, 32, 64, 96)
"""Few channels at full resolution, where convolutions cost most: decoding took 18 ms on two cores, 30 ms with 16-32-64-96-128."""
DENOISER_WIDTHS = (64, 96, 128)


def make_vae() -> AutoencoderKL:
    """The f16 autoencoder, without attention, so that it can be trained on crops."""
    levels = len(VAE_WIDTHS)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        sample_size=256,
        block_out_channels=VAE_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=8,
        act_fn="relu",
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
    )


def make_text_encoder(words: int, end_token: int) -> CLIPTextModel:
    """A small CLIP text encoder; words: size of the vocabulary; end_token: id of the end token, which is also the padding."""
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=TEXT_WIDTH,
        intermediate_size=3 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=TEXT_WIDTH,
        hidden_act="gelu",
        bos_token_id=end_token - 1,
        eos_token_id=end_token,
        pad_token_id=end_token,
        attn_implementation="eager",
    )
    return CLIPTextModel(config)


def make_denoiser() -> UNet2DConditionModel:
    """The UNet of the base denoiser, and of turbo.

    Only the levels of 8 and 4 cells have attention: at 16 cells it doubled the time of a training step. The finest level is conditioned by
    the pooled text in the time embedding (`addition_embed_type="text"`), which scales and shifts every block.
    """
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=DENOISER_WIDTHS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    unet.set_attn_processor(AttnProcessor())  # on a CPU the backward pass of fused attention makes a training step 1.5 times longer
    return unet


def make_scheduler(**changes: Any) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ with flow prediction; a shift of 3 puts more steps at high noise, which helped more than twice the steps."""
    settings = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0, **changes}
    return DPMSolverMultistepScheduler(num_train_timesteps=1000, **settings)
