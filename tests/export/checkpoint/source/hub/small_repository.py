"""A small repository of a diffusers pipeline."""

from __future__ import annotations

import json

SHARD = "unet/diffusion_pytorch_model-0000{}-of-00002.safetensors"
INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"


def make_pipeline() -> dict[str, bytes]:
    """A Stable Diffusion repository as they are: with shards, several formats, variants, and parts that no export needs."""
    parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
    parts |= {"scheduler": "PNDMScheduler", "safety_checker": "StableDiffusionSafetyChecker"}
    index = {"_class_name": "StableDiffusionPipeline"} | {name: ["diffusers", kind] for name, kind in parts.items()}
    weight_map = {"a": SHARD.format(1)[5:], "b": SHARD.format(2)[5:]}
    texts = {
        "model_index.json": json.dumps(index),
        INDEX: json.dumps({"metadata": {}, "weight_map": weight_map}),
        **{f"{name}/config.json": json.dumps({"name": name}) for name in ("unet", "vae", "text_encoder", "safety_checker")},
        "scheduler/scheduler_config.json": "{}",
        **{f"tokenizer/{name}": name for name in ("vocab.json", "merges.txt", "tokenizer_config.json")},
        "README.md": "A model of somebody.",
        "LICENSE": "Anybody may use it.",
    }
    sizes = {SHARD.format(1): 40_000, SHARD.format(2): 30_000, "vae/diffusion_pytorch_model.safetensors": 20_000}
    sizes |= {"text_encoder/model.fp16.safetensors": 10_000}
    sizes |= {"vae/diffusion_pytorch_model.fp16.safetensors": 10, "unet/diffusion_pytorch_model.bin": 10, "unet/model.onnx": 10}
    sizes |= {"safety_checker/model.safetensors": 10, "unet/diffusion_flax_model.msgpack": 10, "v1-5-pruned.safetensors": 10}
    weights = {name: bytes((index + size) % 251 for index in range(size)) for name, size in sizes.items()}
    return {name: text.encode() for name, text in texts.items()} | weights


NOT_NEEDED = {
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "unet/diffusion_flax_model.msgpack",
    "unet/diffusion_pytorch_model.bin",
    "unet/model.onnx",
    "v1-5-pruned.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
}
