"""What a family is described by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A linear map from a latent cell to RGB in 0..1: latent @ matrix + bias."""

    matrix: tuple[Rgb, ...]
    bias: Rgb


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySpec:
    """A family of models: its networks, its usual size and settings. How its graphs are made is the exporter's to know."""

    name: str
    title: str
    text_encoders: Mapping[str, str]
    """Tokenizer of each text encoder, both by their folder in a diffusers pipeline."""
    side_px: int
    """Side of its usual square images, for models whose configuration does not say it."""
    size_multiple_px: int
    """Sides of images are multiples of it."""
    num_inference_steps: tuple[int, ...]
    """Of the default candidates of a model that is not distilled."""
    guidance_scale: float
    preview: Preview
    best_quality: float
    """What its best candidate is expected to score, relative to other families; see `prior`."""
