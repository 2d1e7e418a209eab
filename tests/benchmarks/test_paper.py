"""The paper's experiment, from a table of prompts to pages and plots, on a tiny bundle with a random scorer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks import paper
from benchmarks.split_bundle import split_bundle
from tests.pools import write_pool_of

SUBJECTS = ("house", "boat", "tree", "bird")
COLOURS = ("red", "old", "blue", "green")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["prompt_id", "prompt", "stated"])
        for index in range(16):
            text = f"a {COLOURS[index % 4]} {SUBJECTS[index // 4]}" + ", with snow and rain" * (index % 3)
            table.writerow([f"p{index}", text, json.dumps({"house": "red"})])
    return path


def test_labels_are_split_fitted_judged_and_drawn_and_a_second_run_labels_nothing(
    judged_bundle: Path, engine_home: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    files = {"--bundle": judged_bundle, "--home": engine_home, "--prompts": prompts, "--out": out}
    options = ["--json", "--quick", *(str(part) for option in files.items() for part in option)]
    assert paper.main([*options, "--seeds", "2", "--held-out", "0.5"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    figures = {each["name"]: each["value"] for each in row["figures"]}
    assert {"area above random mixing", "gain over best single candidate"} <= figures.keys()
    assert row["notes"]["held out"] == "8 prompts"
    assert {"tiny-base: fewer steps", "tiny-turbo: fewer steps"} <= row["notes"].keys()
    drawn = {"paper-postcard.html", "deferral-postcard.svg", "complexity-postcard.svg"}
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        "labels.csv",
        "fitted.csv",
        "held-out.csv",
        "postcard.bundle",
        *drawn,
    }
    tables = [(out / name).read_text(encoding="utf-8").splitlines() for name in ("labels.csv", "fitted.csv", "held-out.csv")]
    header = tables[0][0]
    assert tables[1][0] == tables[2][0] == header
    assert sorted(tables[1][1:] + tables[2][1:]) == sorted(tables[0][1:])
    labels = (out / "labels.csv").read_bytes()
    assert paper.main([*options, "--seeds", "2", "--held-out", "0.5"]) == 0
    assert (out / "labels.csv").read_bytes() == labels


def test_independent_models_in_a_pool_are_judged_alike(
    judged_bundle: Path, engine_home: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = write_pool_of(tmp_path / "parts.pool", *split_bundle(judged_bundle, tmp_path / "parts"))
    files = {"--pool": pool.root, "--home": engine_home, "--prompts": prompts, "--out": tmp_path / "out"}
    options = ["--json", "--quick", *(str(part) for option in files.items() for part in option)]
    assert paper.main([*options, "--seeds", "1", "--count", "8", "--held-out", "0.5"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["notes"]["held out"] == "4 prompts"
    assert list((tmp_path / "out" / "postcard.pool").rglob("router.json"))


def test_the_same_prompts_are_drawn_whatever_the_count(prompts: Path) -> None:
    rows = paper.read_prompts(prompts)
    few, many = paper.choose_prompts(rows, 4), paper.choose_prompts(rows, 9)
    assert len(few) == 4
    assert {row.prompt_id for row in few} < {row.prompt_id for row in many}
    assert paper.choose_prompts(rows, 99) == rows


@pytest.mark.parametrize("options", [("--held-out", "0"), ("--held-out", "1"), ("--count", "0"), ("--seeds", "0")])
def test_values_that_leave_nothing_are_refused(options: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        paper.main(["--prompts", "x.csv", "--out", str(tmp_path), *options])
