"""Stable Diffusion 2.x: one OpenCLIP text encoder; 512 pixels (base, Turbo) or 768 (v-prediction)."""

from __future__ import annotations

from costroute_rt.export.families.sd1 import PREVIEW
from costroute_rt.export.families.spec import FamilySpec

SD2 = FamilySpec(
    name="sd2",
    title="Stable Diffusion 2.x",
    text_encoders={"text_encoder": "tokenizer"},
    side_px=768,
    size_multiple_px=8,
    num_inference_steps=(8, 15, 25),
    guidance_scale=7.0,
    preview=PREVIEW,
    best_quality=0.70,
)
