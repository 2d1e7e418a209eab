"""Names and shapes of parameters equal those of the real classes, also for settings that few models have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from tests.checkpoints import SD15, SDXL
from tests.export.small_checkpoint import needs_export

UNETS: dict[str, dict[str, Any]] = {
    "of two depths (SSD-1B)": {
        "layers_per_block": 2, "transformer_layers_per_block": [1, [2, 2], [4, 1]], "mid_block_type": "UNetMidBlock2D",
        "reverse_transformer_layers_per_block": [[4, 4, 3], [2, 1, 1], 1],
    },
    "with no depth where there is no attention": {"transformer_layers_per_block": [0, 2, 3]},
    "without a middle": {"mid_block_type": None},
    "of uneven blocks": {"layers_per_block": [1, 2, 3]},
    "with a guidance scale": {"time_cond_proj_dim": 16},
    "with projected text": {"encoder_hid_dim": 40, "encoder_hid_dim_type": "text_proj"},
    "with other kernels": {"conv_in_kernel": 5, "conv_out_kernel": 1, "time_embedding_dim": 100},
    "with text of two widths": {"cross_attention_dim": [8, 16, 24]},
    "with convolutions around attention": {"use_linear_projection": False},
}  # fmt: skip
VAES: dict[str, dict[str, Any]] = {
    "without convolutions at the latents": {"use_quant_conv": False, "use_post_quant_conv": False, "latent_channels": 16},
    "without attention": {"mid_block_add_attention": False, "layers_per_block": 3},
    "of one block": {
        "block_out_channels": [32], "down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"resnet_time_scale_shift": "scale_shift"}, {"dual_cross_attention": True}, {"class_embed_type": "timestep"},
        {"addition_embed_type": "image"}, {"time_embedding_type": "fourier"}, {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
        {"down_block_types": ["AttnDownBlock2D"] * 3}, {"up_block_types": ["UpBlock2D"]}, {"transformer_layers_per_block": [1, [1], 1]},
        {"transformer_layers_per_block": [1, 0, 1]}, {"norm_num_groups": None, "block_out_channels": []},
        {"reverse_transformer_layers_per_block": 1}, {"norm_num_groups": 24}, {"attention_head_dim": 5}, {"act_fn": "os.system"},
        {"norm_eps": float("nan")}, {"dropout": 2}, {"sample_size": "x"}, {"only_cross_attention": 0}, {"flip_sin_to_cos": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_settings_that_change_the_parameters_in_another_way_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=rf"config\.json: {list(changes)[-1]} is "):
        parameters("UNet2DConditionModel", SDXL["unet"] | changes, Path("config.json"))


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "exec"}, {"num_attention_heads": 5}, {"layer_norm_eps": "0"}, {"eos_token_id": -1}, {"vocab_size": 2**60}]
)
def test_settings_of_a_text_encoder_that_its_class_cannot_use_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=rf"config\.json: {next(iter(changes))} is "):
        parameters("CLIPTextModel", SD15["text_encoder"] | changes, Path("config.json"))


class TestWithTorch:
    pytestmark = needs_export

    @pytest.mark.parametrize("name", UNETS)
    def test_of_a_unet(self, name: str) -> None:
        self.compare("UNet2DConditionModel", SDXL["unet"] | UNETS[name])

    @pytest.mark.parametrize("name", VAES)
    def test_of_a_vae(self, name: str) -> None:
        self.compare("AutoencoderKL", SD15["vae"] | VAES[name])

    def compare(self, class_name: str, config: dict[str, Any]) -> None:
        import diffusers
        from accelerate import init_empty_weights

        with init_empty_weights():
            module = getattr(diffusers, class_name).from_config(config)
        shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        assert parameters(class_name, config, Path("config.json")) == shapes
