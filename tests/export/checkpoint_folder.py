"""A checkpoint folder of Stable Diffusion's shape with weights of a few bytes, for checks that need no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from costroute_rt.export.checkpoint.recipe import BundleRecipe

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "cross_attention_dim": 768,
}
VAE = {"_class_name": "AutoencoderKL", "latent_channels": 4, "block_out_channels": [128, 256, 512, 512], "scaling_factor": 0.18215}
TEXT_ENCODER = {"architectures": ["CLIPTextModel"], "hidden_size": 768, "max_position_embeddings": 77, "vocab_size": 49408}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
PNDM = {"_class_name": "PNDMScheduler", **SCHEDULE, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
DDIM = {"_class_name": "DDIMScheduler", **SCHEDULE, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
ROW = {"name": "base@20", "denoiser": "base", "scheduler": "default", "num_inference_steps": 20, "guidance_scale": 7.5, "decoder": "vae"}
WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


def write_folder(root: Path, *, scheduler: Mapping[str, Any] = DDIM, **changes: Mapping[str, Any]) -> Path:
    """changes: settings of unet, vae and text_encoder, of further denoisers such as unet_small, and of model_index."""
    root.mkdir(parents=True, exist_ok=True)
    configs: dict[str, Mapping[str, Any]] = {"unet": UNET, "vae": VAE, "text_encoder": TEXT_ENCODER}
    configs |= {name: UNET for name in changes if name.startswith("unet_")}
    for name, config in configs.items():
        write_json(root / name / "config.json", {**config, **changes.get(name, {})})
        save_file({"weight": np.ones(4, np.float16)}, root / name / WEIGHTS.get(name, WEIGHTS["unet"]))
    write_json(root / "scheduler" / "scheduler_config.json", scheduler)
    write_json(root / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer"})
    write_json(root / "model_index.json", {"_class_name": "StableDiffusionPipeline", **changes.get("model_index", {})})
    return root


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def simple_recipe(*rows: Mapping[str, Any], **changes: Any) -> BundleRecipe:
    """A recipe with these changes of `ROW` as candidates."""
    pool = tuple({**ROW, **row} for row in rows or ({},))
    quality = {"metric": "none", "candidates": {row["name"]: {"mean": 0.5, "standard_error": 0.1} for row in pool}}
    return BundleRecipe(**{"family": "sd", "revision": "1", "license": "MIT", "pool": pool, "quality": quality} | changes)
