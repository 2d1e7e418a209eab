"""A checkpoint of the postcard family's classes with random weights, small enough to export in a test."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.export.checkpoint.recipe import BundleRecipe

TOKENS = 64
LICENSE_TEXT = "Apache License, Version 2.0: the text would stand here.\n"
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "i n", "in g</w>", "' s</w>", "! !</w>", "a t", "Ã ©</w>", "r e", "re d</w>"]

MISSING = [name for name in ("torch", "diffusers", "transformers", "optimum", "onnx", "onnxruntime") if find_spec(name) is None]
needs_export = [
    pytest.mark.export,
    pytest.mark.skipif(bool(MISSING), reason=f"runs the torch side; missing here: {', '.join(MISSING)} (pip install costroute-rt[export])"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
"""Marks of a test module; warnings of torch and its libraries are ignored."""


def write_checkpoint(root: Path, *, addition_embed_type: str | None = "text") -> Path:
    """A StableDiffusionPipeline with `unet`, `unet_small` and `unet_turbo`, in float32 as training leaves it."""
    import torch
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline

    torch.manual_seed(0)
    torch.set_num_threads(1)
    pipeline = StableDiffusionPipeline(
        vae=_randomise(
            AutoencoderKL(
                in_channels=3,
                out_channels=3,
                latent_channels=16,
                block_out_channels=(8, 8, 16, 16, 24),
                down_block_types=("DownEncoderBlock2D",) * 5,
                up_block_types=("UpDecoderBlock2D",) * 5,
                layers_per_block=1,
                norm_num_groups=8,
                sample_size=256,
                scaling_factor=0.75,
            )
        ),
        text_encoder=_text_encoder(),
        tokenizer=write_tokenizer(root / "tokenizer"),
        unet=_unet((32, 48, 64), addition_embed_type),
        scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(root)
    for name in ("small", "turbo"):
        _unet((16, 32), addition_embed_type).save_pretrained(root / f"unet_{name}")
    (root / "LICENSE").write_text(LICENSE_TEXT, encoding="utf-8")
    return root


def make_recipe(**changes: Any) -> BundleRecipe:
    rows = (("turbo@2", "turbo", "few", 2, 1.0), ("small@4", "small", "default", 4, 3.0), ("base@8", "base", "default", 8, 3.0))
    fields = ("name", "denoiser", "scheduler", "num_inference_steps", "guidance_scale")
    pool = tuple(dict(zip(fields, row, strict=True)) | {"decoder": "vae"} for row in rows)
    return BundleRecipe(
        **{
            "family": "small",
            "revision": "1",
            "license": "Apache-2.0",
            "pool": pool,
            "quality": {"metric": "none", "candidates": {row["name"]: {"mean": 0.5, "standard_error": 0.1} for row in pool}},
            "schedulers": {"few": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}},
        }
        | changes
    )


def write_tokenizer(folder: Path, drop: str = "") -> Any:
    """A CLIPTokenizer over all bytes (but those of `drop`) and a few merges."""
    from transformers import CLIPTokenizer
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    letters = [letter for letter in bytes_to_unicode().values() if letter not in drop]
    words = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in MERGES]
    vocabulary = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(vocabulary)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS)


def _text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 32}
    return _randomise(CLIPTextModel(CLIPTextConfig(vocab_size=1024, max_position_embeddings=TOKENS, **sizes)))


def _unet(widths: tuple[int, ...], addition_embed_type: str | None) -> Any:
    from diffusers import UNet2DConditionModel

    deeper = len(widths) - 1
    return _randomise(
        UNet2DConditionModel(
            sample_size=16,
            in_channels=16,
            out_channels=16,
            block_out_channels=widths,
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * deeper),
            up_block_types=(*("CrossAttnUpBlock2D",) * deeper, "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=16,
            addition_embed_type=addition_embed_type,
            addition_embed_type_num_heads=4,
            norm_num_groups=8,
        )
    )


def _randomise(module: Any) -> Any:
    """Add noise to every parameter, so that no two tensors are equal by construction."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return module.eval()
