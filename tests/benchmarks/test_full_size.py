"""The models of full size that benchmarks write."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.full_size import MODELS
from costroute_rt.export.checkpoint.source.parameter.of_class import parameters

COUNTS = {
    ("sd15", "unet"): 859_520_964,
    ("sd15", "vae"): 83_653_863,
    ("sd15", "text_encoder"): 123_060_480,
    ("sdxl", "unet"): 2_567_463_684,
    ("sdxl", "text_encoder_2"): 694_659_840,
}
"""Parameters of the published models."""


@pytest.mark.parametrize(("model", "network"), COUNTS)
def test_networks_have_the_published_sizes(model: str, network: str) -> None:
    config = MODELS[model][network]
    shapes = parameters(config.get("_class_name") or config["architectures"][0], config, Path("config.json"))
    assert sum(math.prod(shape) for shape in dict(shapes).values()) == COUNTS[model, network]
