"""`python -m benchmarks.router_votes` on a small table in the format of GeckoNum."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import router_votes
from benchmarks.score_table import TABLES, label_table
from costroute_rt.export.router.vote_table import VoteTable

MODELS = ("first", "second", "third")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    code = router_votes.main(["--json", *map(str, arguments)])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def write_geckonum(folder: Path, prompts: int = 100) -> None:
    """Short prompts are served best by the first model, others by the last."""
    rng = np.random.default_rng(0)
    with (
        gzip.open(folder / "scores_geckonum.csv.gz", "wt", encoding="utf-8", newline="") as means,
        gzip.open(folder / "scores_geckonum_per_image.csv.gz", "wt", encoding="utf-8", newline="") as images,
    ):
        about, scores = csv.writer(means), csv.writer(images)
        about.writerow(["prompt_id", "prompt", "prompt_type", "task", "model", "score", "n_images"])
        scores.writerow(["prompt_id", "model", "seed", "score", "n_raters"])
        for index in range(prompts):
            kind = index % 2
            text = " ".join(rng.choice([["cat", "dog"], ["red", "blue"]][kind], 3)) + f" {index}"
            for place, model in enumerate(MODELS):
                about.writerow([index, text, "kind", "task", model, 0, 2])
                for seed in range(2):
                    scores.writerow([index, model, seed, round(0.5 + 0.2 * (place - 1) * (1 if kind else -1) + 0.1 * rng.normal(), 3), 5])


def test_votes_teach_what_scores_teach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_geckonum(tmp_path)
    code, rows = run(capsys, "alone", "--data", tmp_path)
    assert [row["error"] for row in rows] == [None, None]
    shares = [next(figure["value"] for figure in row["figures"] if figure["name"] == router_votes.SHARE) for row in rows]
    assert code == 0
    assert min(shares) > 0.8


def test_the_image_with_the_higher_score_wins(tmp_path: Path) -> None:
    write_geckonum(tmp_path, 20)
    with label_table(TABLES["geckonum"].rows(tmp_path)) as table:
        truth = table.cells()
        router_votes.write_votes(tmp_path / "votes.csv", table, truth, 15, 0)
    votes = VoteTable.open(tmp_path / "votes.csv")
    assert len(votes) == 20 * 15
    won = np.where(votes.result == 1, votes.first, votes.second)[votes.result != 0.5]
    kind = np.array([int(votes.prompt_ids[row]) % 2 for row in votes.prompt])[votes.result != 0.5]
    best = np.array([votes.candidates.index("first"), votes.candidates.index("third")])[kind]
    assert (won == best).mean() > 0.5


def test_missing_tables_are_reported_as_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, [row] = run(capsys, "together", "--data", tmp_path)
    assert code == 0
    assert "scores_geckonum.csv.gz" in row["notes"]["skipped"]
