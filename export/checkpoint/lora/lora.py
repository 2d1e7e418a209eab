"""A LoRA file: low-rank changes of a model's weights, whose numbers stay in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from costroute_rt.engines.bundle.safetensors_file import StoredTensor

FAMILIES = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL"}
"""Names of the families in messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraModule:
    """The change of one layer: `alpha / rank * up @ down` (Hu et al. 2021, section 4.1)."""

    name: str
    """Of the layer, as the file calls it."""
    network: str
    """Such as unet, text_encoder, text_encoder_2."""
    layer: str
    """Name of the layer in its network, with underscores for dots."""
    down: StoredTensor
    """[rank, in], or [rank, in, height, width] of a convolution."""
    up: StoredTensor
    """[out, rank], with further axes of length 1 of a convolution."""
    mid: StoredTensor | None
    """[rank, rank, height, width] of a convolution that is decomposed further (LoCon): `down` is then 1x1."""
    scaling: float
    """alpha / rank."""

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A LoRA file that was checked: its layout is known, it is complete, and its numbers are finite."""

    path: Path
    sha256: str
    modules: tuple[LoraModule, ...]
    metadata: Mapping[str, str]
    """What the trainer wrote into the file."""

    @property
    def name(self) -> str:
        """The file's name without extension."""
        return self.path.stem
