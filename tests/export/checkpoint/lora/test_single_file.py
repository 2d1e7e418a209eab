"""A LoRA changes a single file, where q, k and v are rows of one tensor and matrices may be transposed, as it changes a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.export.checkpoint.lora.fuse import fuse_loras
from costroute_rt.export.checkpoint.source import open_source
from tests.checkpoints import write_sd2_single_file, write_sdxl_single_file
from tests.export.checkpoint.lora.lora_files import RANK, expected, kohya, make_factors, value_of, write_numbers


@pytest.mark.parametrize("write", [write_sd2_single_file, write_sdxl_single_file])
def test_every_layer_of_a_single_file_is_changed_by_the_formula(tmp_path: Path, write: Any) -> None:
    source = open_source(write(tmp_path / "model.safetensors"))
    layers = {
        f"{name}.{parameter.removesuffix('.weight')}"
        for name, network in source.networks.items()
        for parameter, region in network.weights.items()
        if name != "vae" and parameter.endswith(".weight") and len(region.shape) > 1 and "embedding.weight" not in parameter
    }
    factors = make_factors(source, layers)
    lora = write_numbers(tmp_path / "a.safetensors", kohya(factors, 0.5))
    fused = fuse_loras(source, [(lora, 0.6)], tmp_path / "fused")
    for name, value in expected(source, factors, 0.3 / RANK).items():
        network, _, layer = name.partition(".")
        np.testing.assert_allclose(value_of(fused.networks[network].weights[f"{layer}.weight"]), value, rtol=1e-3, atol=1e-3, err_msg=name)
    changed = {
        f"{name}.{parameter.removesuffix('.weight')}"
        for name, network in fused.networks.items()
        for parameter, region in network.weights.items()
        if region != source.networks[name].weights[parameter]
    }
    assert changed == layers
