"""A bundle with int8 weights beside the float ones: components, candidates, and the check of its images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import CancelledError
from costroute_rt.export.bundle.event import ExportEvent
from costroute_rt.export.bundle.export import ExportReport, export_model
from costroute_rt.export.bundle.options import ExportOptions
from costroute_rt.export.quantisation import component, matrix
from tests.export.bundle.tiny_source import make_graphs, write_source
from tests.export.small_checkpoint import needs_export

pytestmark = needs_export

DENOISER, INT8 = "unet", "unet-int8"


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the tiny network count as large."""
    monkeypatch.setattr(matrix, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(matrix, "_FEWEST_VALUES", 1)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "fox.bundle"


def export(tmp_path: Path, target: Path, **how: Any) -> ExportReport:
    source = write_source(tmp_path / "source")
    return export_model(source, target, ExportOptions(int8=True, steps=(3, 9)), make_graphs=make_graphs, **how)


def names(bundle: Bundle) -> list[str]:
    return [row["name"] for row in bundle.pool]


def test_a_bundle_gets_a_second_denoiser_with_candidates_of_its_own(tmp_path: Path, target: Path) -> None:
    report = export(tmp_path, target)
    bundle = Bundle.open(target)
    assert names(bundle) == ["fox-v1@3", "fox-v1@9", "fox-v1-int8@3", "fox-v1-int8@9"]
    plain, other = bundle.components[DENOISER], bundle.components[INT8]
    assert (plain.weight_precision, other.weight_precision, other.guidance) == ("float", "int8", plain.guidance)
    assert other.weights == ("unet/weights-int8.safetensors", "unet/weights.safetensors")
    assert bundle.weights_bytes(INT8) < bundle.weights_bytes(DENOISER)
    gate = bundle.quality_gates[INT8]
    assert (gate.reference, gate.images, gate.num_inference_steps, gate.height) == (DENOISER, 2, 4, 64)
    assert 30 < gate.latent_psnr_db < 200
    assert gate.ssim > 0.9
    assert bundle.read_manifest()["quality_gates"][INT8] == dataclasses.asdict(gate)
    quality = bundle.quality["candidates"]
    assert quality["fox-v1@9"]["mean"] > quality["fox-v1-int8@9"]["mean"] > quality["fox-v1@3"]["mean"]
    assert report.plan.int8


def test_weights_that_change_the_images_are_left_out_with_the_reason(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def inverted(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        numbers, scale = exact(values, axis)
        return numbers, -30 * scale

    exact = component.quantise
    monkeypatch.setattr(component, "quantise", inverted)
    report = export(tmp_path, target)
    bundle = Bundle.open(target)
    assert names(bundle) == ["fox-v1@3", "fox-v1@9"]
    assert INT8 not in bundle.components
    assert not bundle.quality_gates
    assert not list(target.rglob("*int8*"))
    assert "int8: left out, its images differ from those of unet: latent PSNR" in report.plan.notes[-1]
    assert not report.plan.int8


@pytest.mark.parametrize("part", ["unet-int8", "comparing images of int8 weights"])
def test_an_export_that_was_stopped_goes_on(tmp_path: Path, target: Path, part: str) -> None:
    def stop(event: ExportEvent) -> None:
        if event.part == part:
            raise CancelledError("stopped")

    source = write_source(tmp_path / "source")
    options = ExportOptions(int8=True, steps=(3,))
    with pytest.raises(CancelledError):
        export_model(source, target, options, make_graphs=make_graphs, progress=stop)
    assert not list(tmp_path.rglob("manifest.json"))
    report = export_model(source, target, options, make_graphs=make_graphs)
    assert DENOISER in report.continued
    assert (INT8 in report.continued) == (part != INT8)
    assert INT8 in Bundle.open(target).quality_gates
    assert not export_model(source, target, options, make_graphs=make_graphs).is_new
