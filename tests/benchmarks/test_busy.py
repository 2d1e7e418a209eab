"""`python -m benchmarks.busy`, on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import busy

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")


def test_the_benchmark_reports_when_images_are_made_again(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy, "REST_S", 0.05)
    monkeypatch.setattr(busy, "QUICK_BUSY_S", 0.1)
    monkeypatch.setattr(busy, "PAUSES_S", (0.0, 0.1))
    busy.main(["--json", "--quick", "--bundle", str(tiny_bundle), "--home", str(engine_home)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4
    assert [line["error"] for line in lines] == [None] * 4
    figures = {figure["name"]: figure["value"] for figure in lines[0]["figures"]}
    assert 0 < figures["served again"] <= figures["served again, slowest"]
    assert lines[0]["notes"].keys() == {"refused under load", "refused then", "refused at rest"}


def test_a_refused_request_is_counted_by_its_reason(tiny_bundle: Path, engine_home: Path) -> None:
    tally = busy.Tally()
    with busy.Runtime.open(tiny_bundle, home=engine_home, build=True) as runtime:
        assert not busy.ask(runtime, 1e-6, 0.0, tally)
        assert busy.ask(runtime, 60_000.0, 0.0, tally)
    assert (tally.images, tally.refused) == (1, {"too_slow": 1})
