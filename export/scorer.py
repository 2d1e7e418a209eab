"""Exports a scorer, a torch module that classifies attributes of an image, as the `scorer` folder of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.export.checkpoint.component import trace_graph, write_json, write_weights
from costroute_rt.export.graph.compose import save_graph


def export_scorer(module: Any, attributes: Mapping[str, Sequence[object]], target: Path, *, height: int, width: int) -> Path:
    """Writes config.json, model.safetensors and scorer.onnx into the directory `target`; returns it.

    module: takes float32[batch, 3, height, width] in -1..1; returns a dict of logits float32[batch, values], one per attribute.
    attributes: the values of each attribute, in the order of its logits.
    The graph takes pixels uint8[batch, height, width, 3] and has one output per attribute: probabilities float32[batch, values].
    """
    import torch

    target.mkdir(parents=True, exist_ok=True)
    weights = target / "model.safetensors"
    module = module.eval().float()
    write_weights(module, weights)
    write_json(target / "config.json", {"attributes": {k: list(v) for k, v in attributes.items()}, "height": height, "width": width})
    pixels = TensorSpec("uint8", ("batch", height, width, 3))
    outputs = {name: TensorSpec("float32", ("batch", len(values))) for name, values in attributes.items()}
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    model = trace_graph(_from_pixels(module, tuple(attributes)), (example,), weights, GraphSpec({"pixels": pixels}, outputs))
    save_graph(model, target / "scorer.onnx")
    return target


def _from_pixels(module: Any, names: tuple[str, ...]) -> Any:
    """Wraps the module so that it takes uint8 pixels and returns probabilities."""
    import torch

    class FromPixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, pixels: Any) -> tuple[Any, ...]:
            logits = self.inner(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
            return tuple(logits[name].softmax(1) for name in names)

    return FromPixels().eval()
