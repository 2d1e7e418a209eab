"""`python -m benchmarks.build`, on a tiny bundle."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import build
from benchmarks.build import MEMORY_TARGET, TIME_TARGET, print_build


def test_building_is_measured_in_an_empty_store(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_build(str(tiny_bundle), str(tmp_path), "onnxruntime", "turbo/step")
    report = json.loads(capsys.readouterr().out)
    assert list(report["engines"]) == ["tiny/turbo/step"]
    assert 0 < report["engines"]["tiny/turbo/step"]["build_s"] <= report["build_s"]
    assert report["cpu_s"] > 0
    assert 0.01 < report["peak_gb"] < 8


def test_slow_or_large_builds_miss_their_targets() -> None:
    assert TIME_TARGET.admits(59)
    assert not TIME_TARGET.admits(61)
    assert not MEMORY_TARGET.admits(8.1)


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="needs TensorRT for RTX: pip install costroute-rt[tensorrt-rtx]")
def test_the_benchmark_builds_and_reports(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--json", "--quick", "--bundle", str(tiny_bundle)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    figures = {figure["name"]: figure["value"] for figure in json.loads(line)["figures"]}
    assert figures["engines"] == 1
    assert figures["build time"] > 0


def test_an_unknown_backend_fails_the_scenario(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--json", "--quick", "--bundle", str(tiny_bundle), "--backend", "abacus"]) == 1
    assert "backend is 'abacus'" in json.loads(capsys.readouterr().out)["error"]
