"""`python -m benchmarks.endurance`, on a tiny bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import endurance
from benchmarks.cancellation import LONGEST_S, WAYS, Way
from costroute_rt import Request, Runtime

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads what processes hold in /proc")


@pytest.mark.parametrize("scenario", sorted(endurance.WORK))
def test_the_benchmark_reports_what_is_kept(
    scenario: str, tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--json", "--quick", "--bundle", str(tiny_bundle), "--home", str(engine_home), "--scenario", scenario]
    assert endurance.main(given) == 0
    figures = {figure["name"]: figure["value"] for figure in json.loads(capsys.readouterr().out)["figures"]}
    assert figures.keys() > {"growth", "threads left", "files left"}
    assert figures["memory"] > 10


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("delay_s", [0.0, LONGEST_S / 4])
def test_every_way_of_cancelling_leaves_the_runtime_usable(way: Way, delay_s: float, tiny_bundle: Path, engine_home: Path) -> None:
    with Runtime.open(tiny_bundle, home=engine_home, build=True) as runtime:
        assert way(runtime, Request(prompt="a lake", candidate=runtime.candidates[-1].name, seed=1), delay_s)
        assert runtime.generate("a lake", seed=1).pixels.size
