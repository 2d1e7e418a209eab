"""Exports a small decoder, a torch module from latents to images, as the `tiny` folder of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.export.checkpoint.component import trace_graph, write_weights
from costroute_rt.export.graph.compose import compose_decode, save_graph


def export_decoder(module: Any, target: Path, *, latent_channels: int, cells: int) -> Path:
    """Writes config.json, diffusion_pytorch_model.safetensors and decode.onnx into the directory `target`; returns it.

    module: a diffusers model that takes latents float32[batch, latent_channels, height, width] as denoisers make them; returns images
    float32[batch, 3, image_height, image_width] in -1..1. cells: height and width of the latents that it is traced with.
    The graph has pixels uint8[batch, image_height, image_width, 3].
    """
    import torch

    target.mkdir(parents=True, exist_ok=True)
    weights = target / "diffusion_pytorch_model.safetensors"
    module = module.eval().float()
    module.save_config(target)
    write_weights(module, weights)
    latent = TensorSpec("float32", ("batch", latent_channels, "height", "width"))
    image = TensorSpec("float32", ("batch", 3, "image_height", "image_width"))
    example = torch.zeros(2, latent_channels, cells, cells)
    model = trace_graph(module, (example,), weights, GraphSpec({"latent": latent}, {"image": image}))
    save_graph(compose_decode(model, scale=1.0, shift=0.0), target / "decode.onnx")
    return target
