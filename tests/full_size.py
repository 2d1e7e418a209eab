"""Single files of the size of the published models, without weights: the numbers are a hole in the file."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from tests.checkpoints import to_single_file
from tests.ldm_layout import Array

_CROSS_DOWN, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel", "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 768,
    "down_block_types": [_CROSS_DOWN, _CROSS_DOWN, _CROSS_DOWN, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", _CROSS_UP, _CROSS_UP, _CROSS_UP],
}  # fmt: skip
_VAE = {
    "_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
_L = {"architectures": ["CLIPTextModel"], "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
_H = {"architectures": ["CLIPTextModel"], "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
_BIG_G = {
    "architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
    "projection_dim": 1280,
}  # fmt: skip
_XL_UNET = _UNET | {
    "block_out_channels": [320, 640, 1280], "down_block_types": ["DownBlock2D", _CROSS_DOWN, _CROSS_DOWN],
    "up_block_types": [_CROSS_UP, _CROSS_UP, "UpBlock2D"], "transformer_layers_per_block": [1, 2, 10], "cross_attention_dim": 2048,
    "use_linear_projection": True, "addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {"unet": _UNET, "vae": _VAE, "text_encoder": _L},
    "sd2": {"unet": _UNET | {"cross_attention_dim": 1024, "use_linear_projection": True}, "vae": _VAE, "text_encoder": _H},
    "sdxl": {"unet": _XL_UNET, "vae": _VAE, "text_encoder": _L, "text_encoder_2": _BIG_G},
}
"""Sizes of the published models, by family; the file of 2.x has a layer that is not used."""


def full_size_tensors(family: str) -> dict[str, Array]:
    """Tensors by the names in the file; all their numbers are one and the same."""
    tensors = {}
    for network, config in PUBLISHED[family].items():
        class_name = config["_class_name"] if "_class_name" in config else config["architectures"][0]
        tensors[network] = {name: _empty(shape) for name, shape in parameters(class_name, config, Path("config.json")).items()}
    return to_single_file(family, PUBLISHED[family], tensors, join=lambda parts: _empty((3 * parts[0].shape[0], *parts[0].shape[1:])))


def write_full_size(path: Path, family: str) -> Path:
    """A safetensors file of float16 with a hole in the place of its numbers; returns `path`."""
    header, end = {}, 0
    for name, tensor in full_size_tensors(family).items():
        begin, end = end, end + 2 * tensor.size
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def _empty(shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(np.float16(0), shape)
