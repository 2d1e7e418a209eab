"""`python -m benchmarks.precision` on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import precision
from costroute_rt.export.quantisation import matrix


def test_each_variant_is_measured_beside_the_baseline(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "VARIANTS", (precision.BASELINE, f"{precision.BASELINE} int8", "openvino float8"))
    monkeypatch.setattr(precision, "is_supported", lambda variant: "float8" not in variant)
    monkeypatch.setattr(matrix, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(matrix, "_FEWEST_VALUES", 1)
    before = (tiny_bundle / "manifest.json").read_bytes()
    assert precision.main(["--quick", "--json", "--bundle", str(tiny_bundle), "--home", str(engine_home)]) == 0
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    figures = {figure["name"]: figure["value"] for figure in rows["onnxruntime float32 int8"]["figures"]}
    assert {"size", "step", "speedup", "latent PSNR", "SSIM"} <= figures.keys()
    assert 30 < figures["latent PSNR"] < 200
    assert rows["openvino float8"]["notes"] == {"skipped": "this CPU does not support float8"}
    assert (tiny_bundle / "manifest.json").read_bytes() == before
