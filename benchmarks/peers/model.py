"""Writes models of full size with random weights: what is needed to measure exports, builds and runs.

    python -m benchmarks.peers.model sd15 FOLDER            (2.1 GB) as diffusers saves it
    python -m benchmarks.peers.model sdxl model.safetensors (6.9 GB) as AUTOMATIC1111 and ComfyUI use it

Both forms of a model have the same weights. Needs neither torch nor much memory.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from costroute_rt.export.checkpoint.source.single_file import unet, vae
from costroute_rt.export.checkpoint.source.single_file.template import TOKENIZERS

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
_NARROW_TEXT: Config = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 4}
_NARROW_VAE: Config = {"block_out_channels": [32, 64, 128, 128], "sample_size": 512}
NARROW: Mapping[str, Mapping[str, Config]] = {
    "sd15": {
        "unet": MODELS["sd15"]["unet"] | {"block_out_channels": [64, 128, 256, 256], "cross_attention_dim": 256},
        "vae": MODELS["sd15"]["vae"] | _NARROW_VAE,
        "text_encoder": _CLIP | _NARROW_TEXT | {"projection_dim": 256},
    },
    "sdxl": {
        "unet": MODELS["sdxl"]["unet"] | {
            "block_out_channels": [64, 128, 256], "transformer_layers_per_block": [1, 1, 2], "attention_head_dim": [1, 2, 4],
            "cross_attention_dim": 512, "projection_class_embeddings_input_dim": 6 * 256 + 256, "sample_size": 64,
        },
        "vae": MODELS["sdxl"]["vae"] | _NARROW_VAE,
        "text_encoder": _CLIP | _NARROW_TEXT | {"projection_dim": 256},
        "text_encoder_2": MODELS["sdxl"]["text_encoder_2"] | _NARROW_TEXT | {"projection_dim": 256},
    },
}  # fmt: skip
"""The same networks with fewer channels and layers, for images of 512 px in a few seconds."""
PIPELINES = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
_FAMILIES = {"sd15": "sd1", "sdxl": "sdxl"}
_CLIP_PREFIX = {"sd15": "cond_stage_model.transformer.text_model.", "sdxl": "conditioner.embedders.0.transformer.text_model."}
_OPEN_CLIP_PREFIX = "conditioner.embedders.1.model."
_OPEN_CLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight", "text_model.encoder.layers": "transformer.resblocks",
    "text_model.embeddings.position_embedding.weight": "positional_embedding", "text_model.final_layer_norm": "ln_final",
    "layer_norm": "ln_", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
_POOL_VALUES = 1 << 22


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of a weight file, made of one parameter, or of three that are joined."""

    name: str
    parameters: tuple[str, ...]
    """Their names in diffusers or transformers, which their values depend on."""
    shape: tuple[int, ...]
    """Of each of these parameters."""
    is_transposed: bool = False

    @property
    def stored_shape(self) -> tuple[int, ...]:
        rows, *others = self.shape[::-1] if self.is_transposed else self.shape
        return (len(self.parameters) * rows, *others)


def write_model(name: str, path: Path) -> Path:
    """A model in float16; name: one of MODELS; path: a single file if it ends in .safetensors, else a folder. Returns `path`."""
    return write_single_file(name, path) if path.suffix == ".safetensors" else write_folder(name, path)


def write_single_file(name: str, path: Path) -> Path:
    tensors: list[_Tensor] = []
    for network, config in MODELS[name].items():
        for parameter, shape in _parameters(config).items():
            tensors += _stored(name, network, config, parameter, shape)
    _write_weights(path, tensors)
    return path


def write_folder(name: str, folder: Path, networks: Mapping[str, Config] | None = None) -> Path:
    """A pipeline of diffusers. networks: settings of each; by default those of full size."""
    index: Config = {"_class_name": PIPELINES[name], "scheduler": ["diffusers", _SCHEDULER["_class_name"]]}
    _write_json(folder / "scheduler" / "scheduler_config.json", _SCHEDULER)
    for network, config in (networks or MODELS[name]).items():
        is_text = network.startswith("text_encoder")
        _write_json(folder / network / "config.json", config)
        file = "model.safetensors" if is_text else "diffusion_pytorch_model.safetensors"
        _write_weights(folder / network / file, [_Tensor(each, (each,), shape) for each, shape in _parameters(config).items()])
        index[network] = ["transformers" if is_text else "diffusers", _class_name(config)]
    for tokenizer, files in TOKENIZERS[_FAMILIES[name]].items():
        shutil.copytree(files, folder / tokenizer, dirs_exist_ok=True)
        index[tokenizer] = ["transformers", "CLIPTokenizer"]
    _write_json(folder / "model_index.json", index)
    return folder


def _class_name(config: Config) -> str:
    return str(config["_class_name"] if "_class_name" in config else config["architectures"][0])


def _parameters(config: Config) -> dict[str, tuple[int, ...]]:
    return dict(parameters(_class_name(config), config, Path("config.json")))


def _stored(model: str, network: str, config: Config, parameter: str, shape: tuple[int, ...]) -> list[_Tensor]:
    """What a single file has for a parameter: a tensor, or nothing where it is a part of one that another parameter names."""
    if network == "unet":
        return [_Tensor(unet.PREFIX + unet.stored_name(parameter, config), (parameter,), shape)]
    if network == "vae":
        name = vae.PREFIX + vae.stored_name(parameter, len(config["block_out_channels"]))
        return [_Tensor(name, (parameter,), (*shape, 1, 1) if "attn_1" in name and len(shape) == 2 else shape)]
    if network == "text_encoder":
        return [_Tensor(_CLIP_PREFIX[model] + parameter.removeprefix("text_model."), (parameter,), shape)]
    if parameter == "text_projection.weight":
        return [_Tensor(f"{_OPEN_CLIP_PREFIX}text_projection", (parameter,), shape, is_transposed=True)]
    if "k_proj" in parameter or "v_proj" in parameter:
        return []
    name = _OPEN_CLIP_PREFIX + _replace(parameter)
    if "q_proj" in parameter:
        joined = tuple(parameter.replace("q_proj", f"{letter}_proj") for letter in "qkv")
        return [_Tensor(name.replace("self_attn.q_proj.", "attn.in_proj_"), joined, shape)]
    return [_Tensor(name, (parameter,), shape)]


def _replace(name: str) -> str:
    for old, new in _OPEN_CLIP.items():
        name = name.replace(old, new)
    return name


def _write_weights(path: Path, tensors: Sequence[_Tensor]) -> None:
    """Random float16 weights that keep the size of what passes through; what is drawn depends on the parameter's name alone."""
    header, end = {}, 0
    for tensor in tensors:
        size = 2 * math.prod(tensor.stored_shape)
        header[tensor.name] = {"dtype": "F16", "shape": list(tensor.stored_shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pool = np.random.default_rng(0).standard_normal(_POOL_VALUES).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            for parameter in tensor.parameters:
                values = _values(pool, parameter, tensor.shape)
                file.write((values.T if tensor.is_transposed else values).tobytes())


def _values(pool: npt.NDArray[np.float32], parameter: str, shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    numbers = np.resize(np.roll(pool, zlib.crc32(parameter.encode()) % _POOL_VALUES), math.prod(shape)).reshape(shape)
    is_gain = len(shape) == 1 and parameter.endswith("weight")
    spread = 0.05 if len(shape) == 1 else 0.1 if "embedding.weight" in parameter else math.prod(shape[1:]) ** -0.5
    return np.asarray(is_gain + spread * numbers, dtype=np.float16)


def _write_json(path: Path, value: Config) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


if __name__ == "__main__":
    print(write_model(sys.argv[1], Path(sys.argv[2])))
