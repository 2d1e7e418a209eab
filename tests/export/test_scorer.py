"""Export of a scorer module to the `scorer` folder of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.export.checkpoint.test_checkpoint import open_session
from tests.export.small_checkpoint import needs_export

pytestmark = needs_export

ATTRIBUTES = {"sky": ("day", "night", "dusk"), "boat": ("no", "yes")}


def make_scorer() -> Any:
    """A network with the parts of a scorer: convolutions, batch norms, one head per attribute."""
    import torch
    from torch import nn

    class Scorer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
            self.heads = nn.ModuleDict({name: nn.Linear(8 * 16, len(values)) for name, values in ATTRIBUTES.items()})

        def forward(self, image: Any) -> dict[str, Any]:
            h = self.layers(image).flatten(1)
            return {name: head(h) for name, head in self.heads.items()}

    torch.manual_seed(0)
    scorer = Scorer()
    scorer.layers[1].running_mean.uniform_(-1, 1)
    scorer.layers[1].running_var.uniform_(0.5, 2)
    return scorer.eval()


def test_scorer_takes_pixels_and_gives_probabilities(tmp_path: Path) -> None:
    import onnx
    import torch

    from costroute_rt.export.scorer import export_scorer

    scorer = make_scorer()
    target = export_scorer(scorer, ATTRIBUTES, tmp_path / "scorer", height=32, width=32)
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors", "scorer.onnx"]

    session = open_session(target / "scorer.onnx", tmp_path / "optimised.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = dict(zip([value.name for value in session.get_outputs()], session.run(None, {"pixels": pixels}), strict=True))
    with torch.no_grad():
        logits = scorer(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert list(found) == list(ATTRIBUTES)
    for name, values in found.items():
        np.testing.assert_allclose(values, logits[name].softmax(1).numpy(), atol=1e-5)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}


def test_a_scorer_with_cleanness_has_one_output_more(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from costroute_rt.export.scorer import CLEANNESS, export_scorer

    class Brightness(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 5, 2)

        def forward(self, image: Any) -> Any:
            return self.layer(image).mean((1, 2, 3)).sigmoid()

    torch.manual_seed(1)
    scorer, cleanness = make_scorer(), Brightness()
    target = export_scorer(scorer, ATTRIBUTES, tmp_path / "scorer", height=32, width=32, cleanness=cleanness)
    session = open_session(target / "scorer.onnx", tmp_path / "optimised.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = dict(zip([value.name for value in session.get_outputs()], session.run(None, {"pixels": pixels}), strict=True))
    assert list(found) == [*ATTRIBUTES, CLEANNESS]
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        np.testing.assert_allclose(found[CLEANNESS], cleanness(image)[:, None].numpy(), atol=1e-5)
        np.testing.assert_allclose(found["sky"], scorer(image)["sky"].softmax(1).numpy(), atol=1e-5)
