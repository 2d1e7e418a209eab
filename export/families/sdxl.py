"""Stable Diffusion XL: two text encoders, pooled text and image sizes; 1024 pixels."""

from __future__ import annotations

from costroute_rt.export.families.spec import FamilySpec, Preview

PREVIEW = Preview(
    matrix=((0.2353, 0.2353, 0.2353), (-0.2353, -0.0196, 0.0392), (0.098, 0.0588, -0.0196), (-0.2745, -0.1961, -0.1373)),
    bias=(0.5882, 0.549, 0.5098),
)
"""The map that T. A. Vass published for Stable Diffusion XL ("Explaining the SDXL latent space", huggingface.co/blog/TimothyAlexisVass,
2024): whole numbers for colours from 0 to 255, divided by 255."""

SDXL = FamilySpec(
    name="sdxl",
    title="Stable Diffusion XL",
    text_encoders={"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"},
    side_px=1024,
    size_multiple_px=8,
    num_inference_steps=(8, 15, 25),
    guidance_scale=6.0,
    preview=PREVIEW,
    best_quality=0.80,
)
