"""Stable Diffusion 1.x: one CLIP text encoder, 512 pixels."""

from __future__ import annotations

from costroute_rt.export.families.spec import FamilySpec, Preview

PREVIEW = Preview(
    matrix=((0.149, 0.1035, 0.104), (0.0935, 0.143, 0.0865), (-0.079, 0.0945, 0.132), (-0.092, -0.1355, -0.2365)),
    bias=(0.5, 0.5, 0.5),
)
"""The map that keturn published for Stable Diffusion 1.4 (discuss.huggingface.co, "Decoding latents to RGB without upscaling", 2022),
moved from -1..1 to 0..1: half of it, plus a half. Stable Diffusion 2 has the same VAE but for the decoder's fine-tuning."""

SD1 = FamilySpec(
    name="sd1",
    title="Stable Diffusion 1.x",
    text_encoders={"text_encoder": "tokenizer"},
    side_px=512,
    size_multiple_px=8,
    num_inference_steps=(8, 15, 25),
    guidance_scale=7.0,
    preview=PREVIEW,
    best_quality=0.70,
)
