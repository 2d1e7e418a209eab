"""`python -m benchmarks.backends` on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import backends
from benchmarks.scenario import Target


def test_a_backend_is_compared_with_the_baseline(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    monkeypatch.setattr(backends, "VARIANTS", (backends.BASELINE, "openvino float32", "openvino float16"))
    monkeypatch.setattr(backends, "SPEEDUP_TARGETS", {"float32": Target(low=1e-6)})
    monkeypatch.setattr(backends, "is_supported", lambda variant: "float16" not in variant)
    monkeypatch.setattr(backends, "PROMPTS", ("a starry night",))
    assert backends.main(["--quick", "--json", "--bundle", str(tiny_bundle), "--home", str(engine_home)]) == 0
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert [figure["name"] for figure in rows["openvino float32"]["figures"]] == ["guided step", "relative error", "speedup", "PSNR"]
    assert rows["openvino float16"]["notes"] == {"skipped": "this CPU does not support float16"}
    assert rows[backends.BASELINE]["versions"]["openvino"]


def test_a_backend_that_is_not_installed_is_reported_as_failed(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    monkeypatch.setattr(backends, "VARIANTS", (backends.BASELINE, "openvino float32"))
    monkeypatch.setattr(backends, "PROMPTS", ("a starry night",))
    assert backends.main(["--quick", "--json", "--bundle", str(tiny_bundle), "--home", str(engine_home)]) == 1
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert "install the openvino extra" in rows["openvino float32"]["error"]
    assert rows[backends.BASELINE]["good"]


def test_errors_are_relative_to_the_largest_value_of_at_least_one() -> None:
    wanted = {"x": np.array([0.0, 10.0]), "y": np.array([0.1])}
    assert backends.largest_error(wanted, {"x": np.array([0.0, 9.0]), "y": np.array([0.15])}) == pytest.approx(0.1)
