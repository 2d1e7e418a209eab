"""`python -m benchmarks.serve`, on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import serve

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
pytest.importorskip("uvicorn", reason='starts the server: pip install "costroute-rt[serve]"')


def test_the_benchmark_asks_a_server_of_its_own(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "LEAVING", 0.2)
    monkeypatch.setattr(serve, "BUDGET", 1e4)
    monkeypatch.setattr(serve, "OVERLOAD", 0.1)
    serve.main(["--json", "--quick", "--bundle", str(tiny_bundle), "--home", str(engine_home)])
    start, alone, load = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (start["error"], alone["error"], load["error"]) == (None, None, None)
    assert [figure["value"] > 0 for figure in start["figures"]] == [True, True]
    figures = {figure["name"]: figure["value"] for figure in alone["figures"]}
    assert figures["engines"] > 0
    assert figures["requests a second"] > 0
    figures = {figure["name"]: figure["value"] for figure in load["figures"]}
    assert figures["errors"] == 0
    assert figures["images a second"] > 0
    assert 0 <= figures["kept"] <= 1
