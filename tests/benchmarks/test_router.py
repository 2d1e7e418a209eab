"""`python -m benchmarks.router` on small tables in the same format."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import router


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    code = router.main(["--json", *map(str, arguments)])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def write_tifa(folder: Path, *, signal: float) -> None:
    """160 prompts of two kinds; each of two models is better by `signal` for one kind."""
    rng = np.random.default_rng(0)
    with (folder / "scores_tifa160.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt_id", "prompt", "model", "score"])
        for index in range(160):
            kind = index % 2
            text = " ".join(rng.choice([["cat", "dog"], ["red", "blue"]][kind], 3)) + f" {index}"
            for model in range(2):
                writer.writerow([f"coco_{index}", text, f"model-{model}", 3 + signal * (model == kind) + 0.2 * rng.standard_normal()])


def figures(row: dict[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in row["figures"]}


def test_routing_gains_where_the_best_model_depends_on_the_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tifa(tmp_path, signal=1.0)
    code, [row] = run(capsys, "tifa160", "--data", tmp_path)
    assert (code, row["error"]) == (0, None)
    assert figures(row)[router.GAIN] == pytest.approx(0.5, abs=0.1)
    assert row["notes"]["routes on"].startswith("prompts in 5 of 5 folds")


def test_noise_is_routed_by_averages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tifa(tmp_path, signal=0.0)
    code, [row] = run(capsys, "tifa160", "--data", tmp_path)
    assert code == 0
    assert row["notes"]["routes on"] == "prompts in 0 of 5 folds, averages in 5"


def test_missing_data_is_reported_as_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, [row] = run(capsys, "geckonum", "--data", tmp_path)
    assert code == 0
    assert row["notes"]["skipped"] == f"skipped: scores_geckonum.csv.gz, scores_geckonum_per_image.csv.gz not found in {tmp_path}"
    assert row["figures"] == []


def test_a_gain_below_its_target_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_tifa(tmp_path, signal=1.0)
    tifa = router.DATASETS["tifa160"]
    strict = router.Dataset(about=tifa.about, files=tifa.files, rows=tifa.rows, targets={router.GAIN: router.Target(low=0.9)})
    monkeypatch.setitem(router.DATASETS, "tifa160", strict)
    code, [row] = run(capsys, "tifa160", "--data", tmp_path)
    assert (code, row["good"]) == (1, False)


def test_assumed_costs_rise_with_quality() -> None:
    assert router.assumed_cost(np.array([0.5, 0.1, 0.9])).tolist() == [2, 1, 3]
