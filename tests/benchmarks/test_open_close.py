"""`python -m benchmarks.open_close`, on a tiny bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import open_close

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes in /proc")


def test_the_benchmark_reports_memory_threads_and_files(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert open_close.main(["--json", "--quick", "--bundle", str(tiny_bundle)]) == 0
    second, again = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    figures = {figure["name"]: figure["value"] for line in (second, again) for figure in line["figures"]}
    assert 0 <= figures["second"] < figures["first"]
    assert (figures["threads left"], figures["files left"]) == (0, 0)
