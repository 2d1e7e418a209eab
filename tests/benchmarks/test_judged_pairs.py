"""`python -m benchmarks.judged_pairs` on a tiny bundle, and the table of judgements itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import judged_pairs
from benchmarks.judged_pairs import PAIRS, Pair, Scored, read_pairs
from costroute_rt import Bundle
from costroute_rt.export.postcard.judge import Finding
from costroute_rt.export.postcard.scene import ATTRIBUTES
from costroute_rt.export.router.labelling import fingerprints

HEADER = "number,prompt,stated,seed,left,right,judgement,weights\n"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code, and the rows by name of the scenario."""
    code = judged_pairs.main(["--json", *map(str, arguments)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, {row["scenario"]["name"]: row for row in rows}


def figures(row: dict[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in row["figures"]}


def write_pairs(path: Path, judgement: str, weights: str = "") -> Path:
    stated = '"{""house"":""red""}"'
    rows = [f"{number},a red house,{stated},{number},tiny-turbo@1,tiny-turbo@8,{judgement},{weights}\n" for number in (1, 2, 3)]
    path.write_text(HEADER + "".join(rows), encoding="utf-8")
    return path


def test_opposite_judgements_agree_in_opposite_shares(
    clean_bundle: Path, engine_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--bundle", clean_bundle, "--home", engine_home)
    _, left = run(capsys, *place, "--pairs", write_pairs(tmp_path / "left.csv", "left"), "--sheets", tmp_path)
    _, right = run(capsys, *place, "--pairs", write_pairs(tmp_path / "right.csv", "right"))
    assert list(left) == ["all pairs", "tiny-turbo@1 or tiny-turbo@8"]
    for part in ("score", "cleanness", "recall"):
        one, other = (figures(rows["all pairs"])[f"agreement of {part}"] for rows in (left, right))
        assert one + other == pytest.approx(1)
    assert figures(left["all pairs"])["other pairs"] == 3
    with Image.open(tmp_path / "pairs-001.png") as sheet:
        assert sheet.width > 6 * 208


def test_the_report_says_how_many_pairs_have_the_judged_weights(
    judged_bundle: Path, engine_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wider = Bundle.open(judged_pairs.bundle_with(Bundle.open(judged_bundle), {"tiny-turbo@8"}, tmp_path / "wider"))
    assert [row["name"] for row in wider.pool][-1] == "tiny-turbo@8"
    marks = fingerprints(wider)
    pairs = write_pairs(tmp_path / "pairs.csv", "equal", f"{marks['tiny-turbo@1']} {marks['tiny-turbo@8']}")
    _, rows = run(capsys, "--bundle", judged_bundle, "--home", engine_home, "--pairs", pairs)
    found = figures(rows["all pairs"])
    assert found["of the judged weights"] == 3
    assert found["equal pairs"] == 3
    assert found["difference, equal pairs"] >= 0
    assert "agreement of score" not in found


@pytest.mark.parametrize(
    ("judgement", "left", "right", "lead"),
    [("left", 0.8, 0.7, 0.1), ("left", 0.7, 0.8, -0.1), ("right", 0.7, 0.8, 0.1), ("right", 0.8, 0.7, -0.1), ("equal", 0.7, 0.8, 0.1)],
)
def test_the_better_image_leads(judgement: str, left: float, right: float, lead: float) -> None:
    pair = Pair(number=1, prompt="x", stated={}, seed=0, left="a@1", right="a@8", judgement=judgement, weights="")
    found = [Finding(probabilities={"house": value}) for value in (left, right)]
    assert Scored(pair=pair, left=found[0], right=found[1]).lead("score") == pytest.approx(lead)


def test_the_table_has_200_pairs_of_one_and_eight_steps() -> None:
    pairs = read_pairs(PAIRS)
    assert [pair.number for pair in pairs] == list(range(1, 201))
    for pair in pairs:
        assert {pair.left.partition("@")[2], pair.right.partition("@")[2]} == {"1", "8"}
        assert pair.judgement in ("left", "right", "equal")
        assert pair.stated
        assert all(value in ATTRIBUTES[name] for name, value in pair.stated.items())
    assert 80 <= sum(pair.left.endswith("@8") for pair in pairs) <= 120
