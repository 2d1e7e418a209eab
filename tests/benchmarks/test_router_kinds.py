"""`python -m benchmarks.router_kinds` on small tables in the same format."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import router_kinds

PATTERNS = ("a {} in {}", "3 {} and 4 {}", "no {} without {}", "a {} to the left of {}", "half of a {} and {}")
THINGS = ("cat", "dog", "boat", "tree", "lamp", "cup")
COLOURS = ("red", "blue", "green", "white", "black")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    code = router_kinds.main(["--json", *map(str, arguments)])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def write_geckonum(folder: Path) -> None:
    """150 prompts of five kinds; which of two models is better depends on the thing, in every kind alike."""
    rng, means, images = np.random.default_rng(0), [], []
    for index in range(150):
        thing, kind = index % 6, index % 5
        prompt = PATTERNS[kind].format(THINGS[thing], COLOURS[index // 30])
        for model in range(2):
            score = 0.5 + (0.2 if (thing < 3) == (model == 0) else 0) + 0.01 * rng.normal()
            means.append([index, prompt, f"kind-{kind}", "task", f"model-{model}", score, 1])
            images.append([index, f"model-{model}", 0, score, 5])
    headings = {
        "scores_geckonum.csv.gz": (["prompt_id", "prompt", "prompt_type", "task", "model", "score", "n_images"], means),
        "scores_geckonum_per_image.csv.gz": (["prompt_id", "model", "seed", "score", "n_raters"], images),
    }
    for name, (heading, rows) in headings.items():
        with gzip.open(folder / name, "wt", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([heading, *rows])


def figures(row: dict[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in row["figures"]}


@pytest.mark.parametrize("options", [(), ("--clusters", "--tags")])
def test_what_all_kinds_share_is_gained_on_a_kind_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    write_geckonum(tmp_path)
    code, [row] = run(capsys, "left-out", "--data", tmp_path, *options)
    assert (code, row["error"]) == (0, None)
    found = figures(row)
    assert found[router_kinds.MEAN] > 0.02
    assert found[router_kinds.WORST] > -1.5
    assert {f"kind-{kind}" for kind in range(5)} <= found.keys()
    assert row["scenario"]["settings"]["kinds while fitting"] == ("clusters of tags" if options else "categories")


def test_missing_data_is_reported_as_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = run(capsys, "encoders", "--data", tmp_path)
    assert code == 0
    assert [row["notes"]["skipped"].split(":")[0] for row in rows] == ["skipped"] * 3


def test_the_error_of_a_mean_counts_equal_texts_together() -> None:
    values = np.array([1.0, 1.0, 0.0, 0.0])
    apart, together = (router_kinds.standard_error(values, np.array(groups)) for groups in ([0, 1, 2, 3], [0, 0, 1, 1]))
    assert apart == pytest.approx(np.sqrt(1 / 12))
    assert together == pytest.approx(0.5)
