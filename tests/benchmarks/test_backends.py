"""`python -m benchmarks.backends` on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import backends
from benchmarks.scenario import Target


def test_a_backend_stands_beside_the_basis(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    monkeypatch.setattr(backends, "WAYS", (backends.BASIS, "openvino float32", "openvino float16"))
    monkeypatch.setattr(backends, "FASTER_TARGETS", {"float32": Target(low=1e-6)})
    monkeypatch.setattr(backends, "can", lambda way: "float16" not in way)
    monkeypatch.setattr(backends, "PROMPTS", ("a starry night",))
    assert backends.main(["--quick", "--json", "--bundle", str(tiny_bundle), "--home", str(engine_home)]) == 0
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert [figure["name"] for figure in rows["openvino float32"]["figures"]] == ["guided step", "error", "times as fast", "likeness"]
    assert rows["openvino float16"]["notes"] == {"why": "this processor does not compute in float16"}
    assert rows[backends.BASIS]["versions"]["openvino"]


def test_a_backend_that_is_not_there_is_a_row(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    monkeypatch.setattr(backends, "WAYS", (backends.BASIS, "openvino float32"))
    monkeypatch.setattr(backends, "PROMPTS", ("a starry night",))
    assert backends.main(["--quick", "--json", "--bundle", str(tiny_bundle), "--home", str(engine_home)]) == 1
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert "install the openvino extra" in rows["openvino float32"]["error"]
    assert rows[backends.BASIS]["good"]


def test_errors_are_relative_to_what_is_large() -> None:
    wanted = {"x": np.array([0.0, 10.0]), "y": np.array([0.1])}
    assert backends.largest_error(wanted, {"x": np.array([0.0, 9.0]), "y": np.array([0.15])}) == pytest.approx(0.1)


def test_speed_is_compared_turn_by_turn() -> None:
    figure = backends.compare_speed([20.0, 30.0], [10.0, 10.0])
    assert (figure.value, figure.low, figure.high) == (2.5, 2.25, 2.75)
