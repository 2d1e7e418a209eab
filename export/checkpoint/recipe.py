"""Recipes: the information that a bundle needs and a checkpoint directory does not contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRecipe:
    """The settings of `export_bundle` besides the checkpoint; they become sections of the manifest and are checked there."""

    family: str
    revision: str
    license: str
    """SPDX identifier of the weights' licence."""
    pool: tuple[Mapping[str, Any], ...]
    """Candidates, cheapest first: name, denoiser, scheduler, num_inference_steps, guidance_scale, decoder."""
    quality: Mapping[str, Any]
    """{"metric": name, "candidates": {candidate: {"mean": score, "standard_error": score}}}"""
    schedulers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Scheduler configurations with _class_name, by the name the pool uses; `default` is the checkpoint's own."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(height, width) pairs the denoisers were trained for, the default first; empty means the UNet's sample_size."""
    any_size: bool = False
    preview: Mapping[str, Any] | None = None
    """{"matrix": 3 floats per latent channel, "bias": 3 floats}; None means that it is fitted to the VAE."""
