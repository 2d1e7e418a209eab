"""Writes models of full size with random weights, as diffusers saves them: what is needed to measure exports, builds and runs.

    python -m benchmarks.full_size sd15 FOLDER       (2.1 GB)
    python -m benchmarks.full_size sdxl FOLDER       (6.9 GB)

Needs neither torch nor much memory. The tokenizers are those of the postcard family.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import costroute_rt
from costroute_rt.export.checkpoint.source.parameter.of_class import parameters

Config = dict[str, Any]
_UNET: Config = {
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768, "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"], "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05,
    "norm_num_groups": 32, "out_channels": 4, "sample_size": 64, "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}  # fmt: skip
_VAE: Config = {
    "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32,
    "out_channels": 3, "sample_size": 512, "scaling_factor": 0.18215, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
_CLIP: Config = {
    "architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12, "num_hidden_layers": 12,
    "projection_dim": 768, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
}  # fmt: skip
_SCHEDULER: Config = {
    "_class_name": "DDIMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False,
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip
MODELS: Mapping[str, Mapping[str, Config]] = {
    "sd15": {"unet": _UNET, "vae": _VAE, "text_encoder": _CLIP},
    "sdxl": {
        "unet": _UNET | {
            "block_out_channels": [320, 640, 1280], "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
            "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"], "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
            "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816, "sample_size": 128,
        },
        "vae": _VAE | {"scaling_factor": 0.13025, "sample_size": 1024},
        "text_encoder": _CLIP,
        "text_encoder_2": _CLIP | {
            "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu", "hidden_size": 1280, "intermediate_size": 5120,
            "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280,
        },
    },
}  # fmt: skip
"""Settings of each network by its folder."""
PIPELINES = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
_POOL_VALUES = 1 << 22


def write_model(name: str, folder: Path) -> Path:
    """A pipeline in float16; name: one of MODELS. Returns `folder`."""
    index: Config = {"_class_name": PIPELINES[name], "scheduler": ["diffusers", _SCHEDULER["_class_name"]]}
    _write_json(folder / "scheduler" / "scheduler_config.json", _SCHEDULER)
    for network, config in MODELS[name].items():
        is_text = network.startswith("text_encoder")
        _write_json(folder / network / "config.json", config)
        file = "model.safetensors" if is_text else "diffusion_pytorch_model.safetensors"
        class_name = config["architectures"][0] if is_text else config["_class_name"]
        _write_weights(folder / network / file, dict(parameters(class_name, config, folder)))
        index[network] = ["transformers" if is_text else "diffusers", class_name]
        if is_text:
            tokenizer = network.replace("text_encoder", "tokenizer")
            shutil.copytree(costroute_rt.shipped_bundle() / "tokenizer", folder / tokenizer, dirs_exist_ok=True)
            settings = json.loads((folder / tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
            _write_json(folder / tokenizer / "tokenizer_config.json", settings | {"model_max_length": config["max_position_embeddings"]})
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
    _write_json(folder / "model_index.json", index)
    return folder


def _write_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Random float16 weights that keep the size of what passes through, drawn from one pool of random numbers."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    pool = rng.standard_normal(_POOL_VALUES).astype(np.float32)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = np.resize(np.roll(pool, int(rng.integers(_POOL_VALUES))), int(np.prod(shape)))
            is_gain = len(shape) == 1 and name.endswith("weight")
            spread = 0.05 if len(shape) == 1 else 0.1 if "embedding.weight" in name else float(np.prod(shape[1:])) ** -0.5
            file.write((is_gain + spread * values).astype(np.float16).tobytes())


def _write_json(path: Path, value: Config) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


if __name__ == "__main__":
    print(write_model(sys.argv[1], Path(sys.argv[2])))
