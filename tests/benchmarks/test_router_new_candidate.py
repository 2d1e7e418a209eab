"""`python -m benchmarks.router_new_candidate` on a small table in the same format."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import router_new_candidate
from benchmarks.router_new_candidate import ADDED, CHANGED, KEPT, OWN, UNLABELLED


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = router_new_candidate.main(["--json", "--quick", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def write_tifa(folder: Path, signal: float) -> None:
    """120 prompts of two kinds; two of four models are better by `signal` for each kind."""
    rng = np.random.default_rng(0)
    with (folder / "scores_tifa160.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt_id", "prompt", "model", "score"])
        for index in range(120):
            kind = index % 2
            text = " ".join(rng.choice([["cat", "dog"], ["red", "blue"]][kind], 3)) + f" {index}"
            for model in range(4):
                writer.writerow([f"coco_{index}", text, f"model-{model}", 3 + signal * (model % 2 == kind) + 0.2 * rng.standard_normal()])


def test_what_anchors_keep_is_between_nothing_and_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tifa(tmp_path, signal=1.0)
    code, row = run(capsys, "tifa160", "--data", tmp_path, "--anchors", 20)
    assert (code, row["error"]) == (0, None)
    figures = {figure["name"]: figure["value"] for figure in row["figures"]}
    assert figures[f"{KEPT}, {ADDED}"] == pytest.approx(1.0, abs=0.1)
    assert figures[f"distance from estimates by full labels, {ADDED}"] < figures[f"distance from estimates by full labels, {UNLABELLED}"]
    assert figures[CHANGED] == 0


def test_without_a_gain_there_is_no_share_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tifa(tmp_path, signal=0.0)
    code, row = run(capsys, "tifa160", "--data", tmp_path)
    assert (code, row["error"]) == (0, None)
    assert not any(figure["name"].startswith((KEPT, OWN)) for figure in row["figures"])


def test_missing_data_is_reported_as_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, row = run(capsys, "geckonum", "--data", tmp_path)
    assert code == 0
    assert row["notes"]["skipped"].startswith("skipped: scores_geckonum.csv.gz")
