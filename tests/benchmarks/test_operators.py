"""`python -m benchmarks.operators` on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import operators


def test_the_time_of_a_run_is_divided_among_operators(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="times the operators of OpenVINO, which is missing: pip install costroute-rt[openvino]")
    assert operators.main(["--quick", "--json", "--bundle", str(tiny_bundle)]) == 0
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {"base/guided_step, as exported", "base/guided_step, as built", "vae/decode, as exported", "vae/decode, as built"} <= set(rows)
    for row in rows.values():
        figures = {figure["name"]: figure["value"] for figure in row["figures"]}
        assert set(figures) >= {"whole run", "nodes", *operators.KINDS.values()}
        assert figures["whole run"] > 0
        assert figures["nodes"] > 0


def test_a_missing_library_is_an_error_of_each_row(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert operators.main(["--quick", "--json", "--bundle", str(tiny_bundle)]) == 1
    assert "openvino" in capsys.readouterr().out
