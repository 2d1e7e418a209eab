"""`python -m benchmarks.pool` and `benchmarks.memory`, on tiny bundles."""

from __future__ import annotations

import csv
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import memory, pool
from tests.cli.conftest import invoke
from tests.export.router.label_text import write_labels


@pytest.fixture(autouse=True)
def commands_of_this_process(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    def command(_: Namespace, *words: object) -> Any:
        done = invoke(*words, "--json")
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    monkeypatch.setattr(pool, "command", command)


def test_the_parts_gain_what_the_whole_gains(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    table = tmp_path / "scores.csv"
    rows = list(csv.DictReader(write_labels(("a", "b", "c"), count=90, costs=False).splitlines()))
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt_id", "prompt", "model", "score"])
        writer.writerows([row["prompt_id"], row["prompt"], row["candidate"], row["score"]] for row in rows if row["seed"] == "0")
    options = ["--json", "--quick", "--bundle", str(tiny_bundle), "--work", str(tmp_path / "work"), "--geckonum", str(table)]
    assert pool.main(options) == 0
    split, elsewhere = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert {each["name"]: each["value"] for each in split["figures"]}["difference of gains"] == 0
    assert {each["name"]: each["value"] for each in elsewhere["figures"]}["models"] == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of another process as Linux reports it")
def test_the_limit_is_watched(tiny_bundle: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    memory.main(["--json", "--quick", "--bundle", str(tiny_bundle), "--home", str(home)])  # times of tiny engines are all overhead
    free, limited = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    figures = {each["name"]: each["value"] for each in limited["figures"]}
    assert (free["error"], limited["error"], figures["over the limit"]) == (None, None, 0)
    assert 0 < figures["most memory"] <= figures["limit"]
