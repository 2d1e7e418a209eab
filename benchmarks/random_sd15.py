"""Writes a bundle whose denoiser has Stable Diffusion 1.5's architecture and random weights, which is enough to measure builds.

    python -m benchmarks.random_sd15 FOLDER

Needs the export extra, about 16 GB of memory and 8 GB of disk; the bundle takes 2 GB. Text encoder and VAE are small.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import costroute_rt
from costroute_rt.engines.machine.telemetry import opt_out_hub

TEXT_WIDTH, TOKENS = 768, 77


def write_bundle(target: Path) -> Path:
    """Exports the bundle as any checkpoint is exported; returns `target`."""
    from costroute_rt.export.checkpoint.checkpoint import export_bundle
    from costroute_rt.export.checkpoint.recipe import BundleRecipe

    row = {"name": "sd15@20", "denoiser": "base", "scheduler": "default", "num_inference_steps": 20}
    row |= {"guidance_scale": 7.5, "decoder": "vae"}
    recipe = BundleRecipe(
        family="random-sd15",
        revision="1",
        license="Apache-2.0",
        pool=(row,),
        quality={"metric": "none", "candidates": {"sd15@20": {"mean": 0.5, "standard_error": 0.1}}},
        schedulers={},
        sizes=((512, 512),),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        write_checkpoint(Path(folder))
        return export_bundle(Path(folder), target, recipe, progress=lambda name, index, total: print(f"{index + 1}/{total} {name}"))


def write_checkpoint(root: Path) -> None:
    """Writes a StableDiffusionPipeline in diffusers' layout."""
    opt_out_hub()
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    words = str(costroute_rt.shipped_bundle() / "tokenizer")
    tokenizer: Any = CLIPTokenizer.from_pretrained(words, model_max_length=TOKENS, local_files_only=True)
    sizes = {"hidden_size": TEXT_WIDTH, "intermediate_size": TEXT_WIDTH, "num_hidden_layers": 1, "num_attention_heads": 12}
    text = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=TOKENS, projection_dim=TEXT_WIDTH, **sizes)
    vae = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        sample_size=512,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(cross_attention_dim=TEXT_WIDTH, attention_head_dim=8, sample_size=64),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(root)


if __name__ == "__main__":
    print(write_bundle(Path(sys.argv[1])))
