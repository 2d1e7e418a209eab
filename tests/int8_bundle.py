"""The tiny bundle with int8 weights beside those of its denoiser `base`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.export.bundle.int8 import INT8, write_int8
from costroute_rt.export.quantisation import component, matrix
from tests.changed_bundle import change_bundle

DENOISER = "base" + INT8
_GATE = {"latent_psnr_db": 50.0, "ssim": 0.99, "images": 2, "height": 64, "width": 64, "num_inference_steps": 4}


def write_int8_bundle(tiny: Path, target: Path, *, is_wrong: bool = False) -> Bundle:
    """is_wrong: the weights are others, so that images are too."""
    exact = component.quantise

    def quantise(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        numbers, scale = exact(values, axis)
        return numbers, -30 * scale if is_wrong else scale

    def change(manifest: dict[str, Any], root: Path) -> None:
        added = write_int8(root, manifest["components"]["base"], lambda _: None)
        manifest["components"][DENOISER] = added["component"]
        manifest["graphs"] |= added["graphs"]
        manifest["quality_gates"] = {DENOISER: {"reference": "base", "min_latent_psnr_db": 25.0, "min_ssim": 0.85, **_GATE}}
        for row in [row for row in manifest["pool"] if row["denoiser"] == "base"]:
            name = row["name"].replace("@", f"{INT8}@")
            manifest["pool"].append({**row, "name": name, "denoiser": DENOISER})
            manifest["quality"]["candidates"][name] = manifest["quality"]["candidates"][row["name"]]

    with pytest.MonkeyPatch.context() as patch:  # the matrices of the tiny network count as large
        patch.setattr(matrix, "_FEWEST_CHANNELS", 1)
        patch.setattr(matrix, "_FEWEST_VALUES", 1)
        patch.setattr(component, "quantise", quantise)
        return change_bundle(tiny, target, change)
