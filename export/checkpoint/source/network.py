"""What a model is made of: its networks, and where each of their parameters lies in the user's own files. No weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The bytes of one parameter: contiguous, in C order, little-endian."""

    file: Path
    """With links resolved."""
    offset: int
    """Of the first byte in the file; no alignment is given."""
    length: int
    """In bytes."""
    dtype: str
    """As safetensors calls it: F32, F16 or BF16."""
    shape: tuple[int, ...]
    """As stored: that of the parameter, except that `is_transposed` swaps the two axes, and that axes of length 1 may differ (a linear
    layer that is stored as a convolution of 1x1)."""
    is_transposed: bool = False
    """Whether the file holds the transposed matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of a model, as its class in diffusers or transformers has it."""

    name: str
    """Folder in a diffusers pipeline: unet, text_encoder, text_encoder_2, vae; and tiny, a small decoder that is taken beside vae."""
    class_name: str
    """Such as UNet2DConditionModel, CLIPTextModel, CLIPTextModelWithProjection, AutoencoderKL, AutoencoderTiny."""
    config: Mapping[str, Any]
    """The settings of the class, as in its config.json."""
    weights: Mapping[str, Region]
    """By the dotted name of the parameter in a module of the class; complete, and nothing else. Of an AutoencoderTiny, those of its
    decoder."""

    def files(self) -> tuple[Path, ...]:
        """The files that hold its weights."""
        return tuple(dict.fromkeys(region.file for region in self.weights.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model whose files were found, identified and checked, without loading weights."""

    path: Path
    """The folder or file."""
    name: str
    """What to call it: the name of the folder or file without extension, or the last part of the hub id."""
    family: str
    """sd1, sd2 or sdxl."""
    pipeline: str
    """The class in diffusers: StableDiffusionPipeline, StableDiffusionXLPipeline or LatentConsistencyModelPipeline."""
    networks: Mapping[str, Network]
    tokenizers: Mapping[str, Path]
    """Folder of each tokenizer (`tokenizer`, `tokenizer_2`), with the files that transformers saves."""
    scheduler: Mapping[str, Any]
    """Its scheduler_config.json, with the prediction type of this model."""
    force_zeros_for_empty_prompt: bool = False
    """Whether a missing negative prompt means zeros instead of the empty text (SDXL)."""
    licenses: tuple[Path, ...] = ()
    """Licence and notice files beside the model."""
    license: str = "unknown"
    """Its licence's name, if the files tell."""
    notes: tuple[str, ...] = field(default=())
    """What was assumed, in sentences for the user: a template of settings, a prediction type."""
