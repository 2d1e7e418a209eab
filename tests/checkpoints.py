"""Tiny checkpoints with random weights in the forms that people have, written without torch.

Every block type of the real models is present. Weights are scaled so that the networks give finite values of ordinary size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from tests.ldm_layout import clip_to_open_clip, unet_to_ldm, vae_to_ldm
from tests.tensor_file import Tensors, write_safetensors
from tests.torch_file import write_torch_file

Config = dict[str, Any]
Array = np.ndarray[Any, Any]
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "i n", "in g</w>", "' s</w>", "a t", "r e", "re d</w>", "f o", "fo x</w>"]
START, END = "<|startoftext|>", "<|endoftext|>"
TOKENS = 77

_UNET: Config = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.39.0", "act_fn": "silu", "attention_head_dim": 4,
    "block_out_channels": [32, 64], "center_input_sample": False, "cross_attention_dim": 32,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
    "in_channels": 4, "layers_per_block": 1, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4,
    "sample_size": 8, "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
_VAE: Config = {
    "_class_name": "AutoencoderKL", "_diffusers_version": "0.39.0", "act_fn": "silu", "block_out_channels": [32, 32, 32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 32,
    "out_channels": 3, "sample_size": 64, "scaling_factor": 0.18215, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
_CLIP: Config = {
    "architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu", "hidden_size": 32, "intermediate_size": 64, "layer_norm_eps": 1e-05,
    "max_position_embeddings": TOKENS, "model_type": "clip_text_model", "num_attention_heads": 2, "num_hidden_layers": 2,
    "projection_dim": 32,
}  # fmt: skip
_PNDM: Config = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.39.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None, "clip_sample": False,
}  # fmt: skip
_DDIM_V = _PNDM | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
_EULER = {name: _PNDM[name] for name in ("beta_end", "beta_schedule", "beta_start", "num_train_timesteps", "steps_offset")} | {
    "_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear", "prediction_type": "epsilon", "timestep_spacing": "leading",
}  # fmt: skip
_LCM = {name: _PNDM[name] for name in ("beta_end", "beta_schedule", "beta_start", "num_train_timesteps", "set_alpha_to_one")} | {
    "_class_name": "LCMScheduler", "original_inference_steps": 50, "prediction_type": "epsilon", "timestep_scaling": 10.0,
    "timestep_spacing": "leading", "clip_sample": False, "steps_offset": 1,
}  # fmt: skip

SD15: dict[str, Config] = {"unet": _UNET, "vae": _VAE, "text_encoder": _CLIP, "scheduler": _PNDM}
"""Settings of the tiny networks by folder."""
SD2: dict[str, Config] = {
    "unet": _UNET | {"attention_head_dim": [4, 8], "use_linear_projection": True},
    "vae": _VAE,
    "text_encoder": _CLIP | {"hidden_act": "gelu"},
    "scheduler": _DDIM_V,
}
LCM: dict[str, Config] = SD15 | {"unet": _UNET | {"time_cond_proj_dim": 16}, "scheduler": _LCM}
SDXL: dict[str, Config] = {
    "unet": _UNET | {
        "block_out_channels": [32, 64, 64], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "attention_head_dim": [2, 4, 4],
        "transformer_layers_per_block": [1, 1, 2], "cross_attention_dim": 32 + 64, "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 48 + 6 * 8,
    },
    "vae": _VAE | {"scaling_factor": 0.13025, "force_upcast": True},
    "text_encoder": _CLIP,
    "text_encoder_2": _CLIP | {
        "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu", "hidden_size": 64, "intermediate_size": 96,
        "num_attention_heads": 4, "projection_dim": 48,
    },
    "scheduler": _EULER,
}  # fmt: skip


def write_sd15_folder(path: Path, **options: Any) -> Path:
    """As stable-diffusion-v1-5; options: those of `write_folder`."""
    return write_folder(path, "StableDiffusionPipeline", SD15, **options)


def write_sd2_folder(path: Path, **options: Any) -> Path:
    """As stable-diffusion-2-1, with v-prediction."""
    return write_folder(path, "StableDiffusionPipeline", SD2, **options)


def write_lcm_folder(path: Path, **options: Any) -> Path:
    """As LCM_Dreamshaper_v7, whose denoiser embeds the guidance scale."""
    return write_folder(path, "LatentConsistencyModelPipeline", LCM, **options)


def write_sdxl_folder(path: Path, **options: Any) -> Path:
    """As stable-diffusion-xl-base-1.0."""
    return write_folder(path, "StableDiffusionXLPipeline", SDXL, **options)


_POSITION_IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
_WIDE_CLIP = _CLIP | {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 1, "vocab_size": 49408}
SD15_FILE: dict[str, Config] = {
    "unet": _UNET | {"block_out_channels": [64, 128], "cross_attention_dim": 64, "attention_head_dim": 8},
    "vae": _VAE,
    "text_encoder": _WIDE_CLIP,
}
"""Settings of the networks in tiny single files; all that shapes do not tell is as in the published models."""
SD2_FILE = SD15_FILE | {
    "unet": SD15_FILE["unet"] | {"use_linear_projection": True, "attention_head_dim": [1, 2]},
    "text_encoder": _WIDE_CLIP | {"hidden_act": "gelu"},
}
SDXL_FILE: dict[str, Config] = {
    "unet": SDXL["unet"] | {
        "block_out_channels": [64, 64, 128], "attention_head_dim": [1, 1, 2], "cross_attention_dim": 64 + 128,
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 48 + 6 * 256,
    },
    "vae": SDXL["vae"],
    "text_encoder": _WIDE_CLIP,
    "text_encoder_2": _WIDE_CLIP | {
        "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu", "hidden_size": 128, "num_attention_heads": 2,
        "projection_dim": 48,
    },
}  # fmt: skip


def write_sd15_single_file(path: Path, **options: Any) -> Path:
    """As v1-5-pruned-emaonly.safetensors; options: those of `write_single_file`."""
    return write_single_file(path, sd15_single_file(), **options)


def write_sd2_single_file(path: Path, **options: Any) -> Path:
    """As v2-1_768-nonema-pruned.safetensors."""
    return write_single_file(path, sd2_single_file(), **options)


def write_sdxl_single_file(path: Path, **options: Any) -> Path:
    """As sd_xl_base_1.0.safetensors."""
    return write_single_file(path, sdxl_single_file(), **options)


def sd15_single_file(seed: int = 0) -> dict[str, Array]:
    """The tensors of such a file by name."""
    tensors = {name: make_tensors(config, seed=seed) for name, config in SD15_FILE.items()}
    return to_single_file("sd1", SD15_FILE, tensors) | {_POSITION_IDS: np.arange(TOKENS)[None]}


def sd2_single_file(seed: int = 0) -> dict[str, Array]:
    """The tensors of such a file by name; its text encoder has one layer more than is used, and a projection."""
    tensors = {name: make_tensors(config, seed=seed) for name, config in SD2_FILE.items()}
    layers = SD2_FILE["text_encoder"]["num_hidden_layers"]
    longer = make_tensors(SD2_FILE["text_encoder"] | {"num_hidden_layers": layers + 1}, seed=seed)
    tensors["text_encoder"] |= {name: tensor for name, tensor in longer.items() if f".layers.{layers}." in name}
    return to_single_file("sd2", SD2_FILE, tensors) | {"cond_stage_model.model.text_projection": np.eye(64, dtype=np.float32)}


def sdxl_single_file(seed: int = 0) -> dict[str, Array]:
    """The tensors of such a file by name."""
    tensors = {name: make_tensors(config, seed=seed) for name, config in SDXL_FILE.items()}
    return to_single_file("sdxl", SDXL_FILE, tensors) | {"conditioner.embedders.1.model.logit_scale": np.ones((), np.float32)}


def to_single_file(
    family: str, configs: Mapping[str, Config], tensors: Mapping[str, Tensors], join: Callable[[list[Array]], Array] = np.concatenate
) -> dict[str, Array]:
    """The tensors of all networks by the names of a single file. join: makes one tensor of several."""
    found = unet_to_ldm(tensors["unet"], configs["unet"]) | vae_to_ldm(tensors["vae"])
    if family == "sd2":
        return found | _prefixed("cond_stage_model.model.", clip_to_open_clip(tensors["text_encoder"], join))
    if family == "sd1":
        return found | _prefixed("cond_stage_model.transformer.", tensors["text_encoder"])
    found |= _prefixed("conditioner.embedders.0.transformer.", tensors["text_encoder"])
    return found | _prefixed("conditioner.embedders.1.model.", clip_to_open_clip(tensors["text_encoder_2"], join))


def _prefixed(prefix: str, tensors: Tensors) -> dict[str, Array]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def write_single_file(
    path: Path, tensors: Tensors, *, dtype: str = "F16", metadata: Mapping[str, str] | None = None, **others: Any
) -> Path:
    """A file of the whole model, in torch's format if it is called .ckpt; returns `path`.

    others: further tensors, such as `v_pred=np.zeros(0)`, or None for names that are left out.
    """
    changed = {name: tensor for name, tensor in {**tensors, **others}.items() if tensor is not None}
    if path.suffix == ".ckpt":
        return write_torch_file(path, changed, dtype=dtype, inside="state_dict", global_step=470_000)
    return write_safetensors(path, changed, dtype=dtype, metadata=metadata)


def write_folder(
    path: Path,
    pipeline: str,
    configs: Mapping[str, Config],
    *,
    dtype: str = "F16",
    variant: str | None = None,
    shards: int = 1,
    extension: str = "safetensors",
    seed: int = 0,
    changes: Mapping[str, Config] | None = None,
) -> Path:
    """A folder as diffusers' save_pretrained writes it; returns `path`.

    dtype: F32, F16 or BF16. variant: in the names of the weight files. shards: weight files of each network; several have an index.
    extension: safetensors, or bin for files of torch.
    changes: settings by folder that replace those of `configs`; `model_index` for entries of the index.
    """
    changed = dict(changes or {})
    index: Config = {"_class_name": pipeline, "_diffusers_version": "0.39.0"}
    for name, usual in configs.items():
        config = usual | changed.get(name, {})
        if name.startswith("text_encoder"):
            tokenizer = name.replace("text_encoder", "tokenizer")
            pads_with_zero = config["hidden_act"] == "gelu"
            config = config | write_tokenizer(path / tokenizer, pad="!" if pads_with_zero else END)
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
            index[name] = ["transformers", config["architectures"][0]]
        else:
            index[name] = ["diffusers", config["_class_name"]]
        if name == "scheduler":
            write_json(path / name / "scheduler_config.json", config)
            continue
        write_json(path / name / "config.json", config)
        write_weights(path / name, make_tensors(config, seed=seed), dtype=dtype, variant=variant, shards=shards, extension=extension)
    if pipeline == "StableDiffusionXLPipeline":
        index["force_zeros_for_empty_prompt"] = True
    write_json(path / "model_index.json", index | changed.get("model_index", {}))
    return path


def make_tensors(config: Config, *, seed: int = 0) -> dict[str, Array]:
    """Random float32 weights of the class that a configuration names, by parameter."""
    class_name = config["_class_name"] if "_class_name" in config else config["architectures"][0]
    generator = np.random.default_rng(seed)
    return {name: _random(generator, name, shape) for name, shape in parameters(class_name, config, Path("config.json")).items()}


def _random(generator: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Near 1 for the weights of norms, near 0 for biases, and else of a variance that keeps the size of what passes through."""
    values = generator.standard_normal(shape, np.float32)
    if len(shape) == 1:
        return np.float32(name.endswith("weight")) + 0.1 * values
    return values / np.float32(np.sqrt(np.prod(shape[1:]))) if "embedding.weight" not in name else 0.1 * values


def write_weights(
    folder: Path, tensors: Tensors, *, dtype: str = "F16", variant: str | None = None, shards: int = 1, extension: str = "safetensors"
) -> None:
    """The weight file of one network, or several with an index, named as diffusers and transformers do."""
    is_encoder, is_torch = folder.name.startswith("text_encoder"), extension == "bin"
    stem = ("pytorch_model" if is_torch else "model") if is_encoder else "diffusion_pytorch_model"
    middle, write = f".{variant}" if variant else "", write_torch_file if is_torch else write_safetensors
    if shards == 1:
        write(folder / f"{stem}{middle}.{extension}", tensors, dtype=dtype)
        return
    names, weight_map = list(tensors), dict[str, str]()
    for shard in range(shards):
        part = names[shard::shards]
        file = f"{stem}{middle}-{shard + 1:05d}-of-{shards:05d}.{extension}"
        write(folder / file, {name: tensors[name] for name in part}, dtype=dtype)
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / f"{stem}.{extension}.index{middle}.json", {"metadata": {}, "weight_map": weight_map})


def write_tokenizer(folder: Path, *, pad: str = END) -> Config:
    """A CLIPTokenizer over all bytes and a few merges, as transformers saves it; returns the settings of a text encoder for it."""
    letters = _letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in MERGES), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    tokens = {"bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END}
    write_json(folder / "special_tokens_map.json", tokens)
    write_json(folder / "tokenizer_config.json", tokens | {"model_max_length": TOKENS, "tokenizer_class": "CLIPTokenizer"})
    return {
        "vocab_size": len(words), "bos_token_id": words.index(START), "eos_token_id": words.index(END), "pad_token_id": words.index(pad),
    }  # fmt: skip


def _letters() -> list[str]:
    """A visible character for each byte, as byte-level BPE has them (Radford et al., GPT-2, 2019); that of `!` is the first."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + index) for index in range(len(others))]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
