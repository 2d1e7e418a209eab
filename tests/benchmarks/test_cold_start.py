"""`python -m benchmarks.cold_start` on a tiny bundle."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import cold_start
from benchmarks.cold_start import HELP, IMPORT, LOADED, ProcessRun, make_scenarios, python, summarise, time_process


def runs(loaded: list[str]) -> list[ProcessRun]:
    return [ProcessRun(started_s=0.0, total_s=0.5, stdout="", stderr=f"a warning\n{json.dumps(loaded)}\n")]


@pytest.mark.parametrize(("code", "absent"), [(HELP, {"numpy", "onnxruntime"}), (IMPORT, {"numpy", "onnxruntime", "click"})])
def test_help_and_import_load_no_heavy_module(code: str, absent: set[str]) -> None:
    done = time_process(python(code + LOADED), os.environ, None)
    assert absent.isdisjoint(json.loads(done.stderr.splitlines()[-1]))


def test_loading_a_forbidden_module_misses_the_target() -> None:
    scenario = make_scenarios(["--help"], "tiny-base@4", 1)[0]
    good, bad = (summarise({"--help": runs(loaded)}, scenario) for loaded in (["click"], ["click", "numpy"]))
    assert [figure.value for figure in good.figures] == [0.5, 0.0]
    assert not scenario.targets["loads numpy"].admits(bad.figures[1].value)


def test_a_failed_process_raises_its_exit_code_and_last_line() -> None:
    with pytest.raises(RuntimeError, match="exit code 3: no such thing"):
        time_process([sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"], os.environ, None)


def test_a_process_that_does_not_write_its_file_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"did not write postcard\.png"):
        time_process(python("pass"), os.environ, tmp_path / "postcard.png")


def test_stages_add_up_to_the_total() -> None:
    run = ProcessRun(started_s=100.0, total_s=1.0, stdout=json.dumps([[["interpreter", 100.1], ["open", 100.5]], {}]), stderr="")
    stages = cold_start.stages(run)
    assert list(stages) == ["interpreter", "open", "exit"]
    assert sum(stages.values()) == pytest.approx(1.0)


@pytest.mark.slow
def test_the_benchmark_runs_on_a_tiny_bundle(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_start, "QUICK_REPEATS", 1)
    cold_start.main(["--quick", "--json", "--bundle", str(tiny_bundle), "--home", str(engine_home)])
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert [row["error"] for row in rows.values()] == [None] * 5
    names = [figure["name"] for figure in rows["stages"]["figures"]]
    assert names[:3] == ["total", "interpreter", "import numpy"]
    assert names[-8:] == ["load engines", "first image", "save", "close", "exit", "modules", "engines", "files hashed"]
    assert rows["gen"]["figures"][0]["target"] == {"at_most": 0.5}
