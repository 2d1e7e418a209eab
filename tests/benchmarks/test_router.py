"""`python -m benchmarks.router` on small tables in the same format."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import fold_figures, router, score_table
from costroute_rt.export.router import curve
from tests.export.router.test_fit import make


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
    assert figures(row)[router.AREA] > 0.2
    assert row["notes"]["routes on"].startswith("prompts in 10 of 10 folds")


def test_noise_neither_gains_nor_loses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tifa(tmp_path, signal=0.0)
    _, [row] = run(capsys, "tifa160", "--data", tmp_path)
    assert abs(figures(row)[router.AREA]) < 0.02


def test_rounding_is_no_loss() -> None:
    assert fold_figures.in_errors("area", curve.Interval(-3e-17, -4e-17, -2e-17)).value == 0
    assert fold_figures.in_errors("area", curve.Interval(-3.0, -3.98, -2.02)).value == pytest.approx(-6)


def test_missing_data_is_reported_as_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, [row] = run(capsys, "geckonum", "--data", tmp_path)
    assert code == 0
    assert row["notes"]["skipped"] == f"skipped: scores_geckonum.csv.gz, scores_geckonum_per_image.csv.gz not found in {tmp_path}"
    assert row["figures"] == []


def test_a_gain_below_its_target_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_tifa(tmp_path, signal=1.0)
    strict = router.Dataset(table=score_table.TABLES["tifa160"], targets={router.GAIN: router.Target(low=0.9)})
    monkeypatch.setitem(router.DATASETS, "tifa160", strict)
    code, [row] = run(capsys, "tifa160", "--data", tmp_path)
    assert (code, row["good"]) == (1, False)


def test_assumed_costs_rise_with_quality() -> None:
    assert fold_figures.assumed_cost(np.array([0.5, 0.1, 0.9])).tolist() == [2, 1, 3]


def test_the_same_choices_after_a_change_of_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tifa(tmp_path, signal=1.0)
    scaled = router.Dataset(
        table=score_table.TABLES["tifa160"], targets={router.EQUAL: router.Target(low=1.0)}, rescaled=True, fold_seeds=(1,)
    )
    monkeypatch.setitem(router.DATASETS, "tifa160", scaled)
    code, [row] = run(capsys, "tifa160", "--data", tmp_path)
    assert (code, figures(row)[router.EQUAL]) == (0, 1)


def test_averages_have_no_area_over_averages() -> None:
    """Pooled folds would show one below 0 (routing.md), because each fold's averages lean away from its own labels."""
    cells = make(60, signal=0)
    folds = []
    for number in range(5):
        rows = np.flatnonzero(np.arange(60) % 5 == number)
        average = np.delete(cells.mean, rows, axis=0).mean(0)
        level = np.broadcast_to(average, (len(rows), 3))
        folds.append(fold_figures.FoldResult(rows=rows, average=average, estimates={"level": level}, reason=""))
    found = fold_figures.kind_figures(folds, "level", cells, resamples=10)
    assert found["area"].value == pytest.approx(0, abs=1e-12)
    assert found["gain"].value == 0


def test_changes_leave_what_they_should() -> None:
    cells = make(60)
    assert (score_table.raise_best(cells).mean - cells.mean).mean(0).max() == pytest.approx(0.25)
    assert score_table.hide_cells(cells).count.sum() == pytest.approx(0.4 * cells.count.sum(), rel=0.2)
    assert sorted(score_table.shuffle_prompts(cells).mean.ravel()) == sorted(cells.mean.ravel())
