"""Exports a scorer, a torch module that classifies attributes of an image, as the `scorer` folder of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.export.checkpoint.component import trace_graph, write_json, write_weights
from costroute_rt.export.graph.compose import save_graph

CLEANNESS = "cleanness"
"""Output of a scorer's graph that also judges images whatever the caption."""


def export_scorer(
    module: Any, attributes: Mapping[str, Sequence[object]], target: Path, *, height: int, width: int, cleanness: Any = None
) -> Path:
    """Writes config.json, model.safetensors and scorer.onnx into the directory `target`; returns it.

    module: takes float32[batch, 3, height, width] in -1..1; returns a dict of logits float32[batch, values], one per attribute.
    attributes: the values of each attribute, in the order of its logits.
    cleanness: a module that takes the same and returns how clean the image is, float32[batch] in 0..1; None if there is none.
    The graph takes pixels uint8[batch, height, width, 3] and has one output per attribute: probabilities float32[batch, values]; and with
    `cleanness` the output CLEANNESS, float32[batch, 1].
    """
    import torch

    target.mkdir(parents=True, exist_ok=True)
    weights = target / "model.safetensors"
    graph = _from_pixels(module.eval().float(), tuple(attributes), None if cleanness is None else cleanness.eval().float())
    write_weights(graph, weights)
    write_json(target / "config.json", {"attributes": {k: list(v) for k, v in attributes.items()}, "height": height, "width": width})
    pixels = TensorSpec("uint8", ("batch", height, width, 3))
    outputs = {name: TensorSpec("float32", ("batch", len(values))) for name, values in attributes.items()}
    if cleanness is not None:
        outputs[CLEANNESS] = TensorSpec("float32", ("batch", 1))
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    model = trace_graph(graph, (example,), weights, GraphSpec({"pixels": pixels}, outputs))
    save_graph(model, target / "scorer.onnx")
    return target


def _from_pixels(module: Any, names: tuple[str, ...], cleanness: Any) -> Any:
    """Wraps the modules so that they take uint8 pixels and return probabilities, and cleanness if there is a module for it."""
    import torch

    class FromPixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scorer, self.cleanness = module, cleanness

        def forward(self, pixels: Any) -> tuple[Any, ...]:
            image = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
            logits = self.scorer(image)
            probabilities = tuple(logits[name].softmax(1) for name in names)
            return probabilities if self.cleanness is None else (*probabilities, self.cleanness(image)[:, None])

    return FromPixels().eval()
