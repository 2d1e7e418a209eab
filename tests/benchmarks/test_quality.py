"""`python -m benchmarks.quality` on a tiny bundle, whose images are noise."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import quality
from benchmarks.caption import Prompt, held_out_captions
from benchmarks.sheet import SheetRow, Tile, draw_sheet, wrap
from costroute_rt.export.postcard.judge import CLEANNESS_WEIGHT, Finding
from costroute_rt.export.postcard.scene import ATTRIBUTES

DRAWINGS = (quality.DRAWN, quality.RECONSTRUCTED, quality.WRONG)
RECALL = "recall of stated things"
NAMES = ["tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8"]


@pytest.fixture
def without_skia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "costroute_rt.export.postcard.painter", None)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code, and the rows by name of the scenario."""
    code = quality.main(["--quick", "--json", *map(str, arguments)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, {row["scenario"]["name"]: row for row in rows}


def figures(row: dict[str, Any]) -> dict[str, Any]:
    return {figure["name"]: figure for figure in row["figures"]}


@pytest.mark.usefixtures("without_skia")
def test_cleanness_and_the_score_of_both_are_reported_and_the_table_has_the_score(
    clean_bundle: Path, engine_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("--bundle", clean_bundle, "--home", engine_home, "--candidates", "tiny-turbo@1")
    _, rows = run(capsys, *wanted, "--out", tmp_path)
    found = figures(rows["tiny-turbo@1"])
    assert 0 < found["cleanness"]["value"] < 1
    mixed = (1 - CLEANNESS_WEIGHT) * found[RECALL]["value"] + CLEANNESS_WEIGHT * found["cleanness"]["value"]
    assert found["score"]["value"] == pytest.approx(mixed, abs=1e-6)  # all three are rounded to six decimals
    path = tmp_path / "quality.json"
    _, rows = run(capsys, *wanted, "--write-table", path)
    mean = json.loads(path.read_text(encoding="utf-8"))["candidates"]["tiny-turbo@1"]["mean"]
    assert mean == pytest.approx(figures(rows["tiny-turbo@1"])["score"]["value"], abs=1e-4)
    assert mean != pytest.approx(figures(rows["tiny-turbo@1"])[RECALL]["value"], abs=1e-4)


@pytest.mark.usefixtures("without_skia")
def test_noise_misses_its_target_and_drawings_without_skia_fail_with_the_fix(
    judged_bundle: Path, engine_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = run(capsys, "--bundle", judged_bundle, "--home", engine_home, "--out", tmp_path, "--attributes")
    assert code == 1
    assert list(rows) == [*NAMES, *DRAWINGS, "contact sheet"]
    base = figures(rows["tiny-base@8"])
    assert {RECALL, "1-2 stated", "3-4 stated", "5-6 stated", "7+ stated", "free-form prompts"} <= set(base)
    assert base[RECALL]["target"] == {"at_least": 0.993}
    assert base[RECALL]["met"] is False
    assert base[RECALL]["low"] <= base[RECALL]["value"] <= base[RECALL]["high"]
    assert "ground" in base
    assert "target" not in figures(rows["tiny-base@4"])[RECALL]
    for name in DRAWINGS:
        assert rows[name]["error"].startswith("ModuleNotFoundError")
        assert rows[name]["error"].endswith("pip install skia-python")
    with Image.open(tmp_path / "quality.png") as sheet:
        assert sheet.width > 4 * 168


def test_drawings_are_scored_where_skia_is_installed(
    judged_bundle: Path, engine_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skia", reason="drawings are made by skia-python, which is missing: pip install costroute-rt[export]")
    _, rows = run(capsys, "--bundle", judged_bundle, "--home", engine_home, "--out", tmp_path, "--candidates", "tiny-turbo@1")
    drawn, restored, wrong = (figures(rows[name])[RECALL] for name in DRAWINGS)
    assert drawn["value"] != wrong["value"]
    assert restored["target"] == {"at_least": 0.99}


def test_the_table_for_the_manifest_is_measured_on_a_separate_set_of_captions(
    judged_bundle: Path, engine_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quality.json"
    code, rows = run(capsys, "--bundle", judged_bundle, "--home", engine_home, "--write-table", path)
    assert code == 0
    table = json.loads(path.read_text(encoding="utf-8"))
    assert table["metric"] == "scorer"
    assert list(table["candidates"]) == NAMES
    for name, row in rows.items():
        assert row["scenario"]["settings"]["captions"] == "held-out-routing"
        assert table["candidates"][name]["mean"] == pytest.approx(figures(row)[RECALL]["value"], abs=1e-4)
        assert table["candidates"][name]["standard_error"] > 0


def test_no_table_is_written_where_a_candidate_fails(
    judged_bundle: Path, engine_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quality.json"
    code, rows = run(
        capsys, "--bundle", judged_bundle, "--home", engine_home, "--write-table", path, "--candidates", "tiny-turbo@1", "tiny-huge@9"
    )
    assert code == 1
    assert rows["tiny-turbo@1"]["error"] is None
    assert "tiny-huge@9" in rows["tiny-huge@9"]["error"]
    assert not path.exists()


def test_a_bundle_without_the_familys_scorer_is_an_error(tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = run(capsys, "--bundle", tiny_bundle, "--home", engine_home)
    assert code == 1
    (row,) = rows.values()
    assert row["error"].startswith("BundleError")


def test_both_kinds_of_free_form_prompts_have_figures_of_their_own() -> None:
    """And a drawing, which only captions have, has neither."""
    captions = [Prompt(text=str(number), stated=dict.fromkeys(list(ATTRIBUTES)[:number], 1)) for number in (1, 3, 5, 7)]
    free_form, other_hands = Prompt(text="sea", stated={"ground": "sea"}), Prompt(text="no boat", stated={"boat": "none"})
    study = quality.Study(captions, free_form=[free_form], other_hands=[other_hands], seeds=1, by_attribute=False)
    drawn = {number: [Finding(probabilities=dict.fromkeys(prompt.stated, 1.0))] for number, prompt in enumerate(captions)}
    made = {**drawn, 4: [Finding(probabilities={"ground": 0.5})], 5: [Finding(probabilities={"boat": 0.25})]}
    found = {figure.name: figure.value for figure in quality.summarise(study, made)}
    assert (found[quality.FREE_FORM_RECALL], found[quality.OTHER_HANDS_RECALL]) == (0.5, 0.25)
    assert (quality.UNWANTED in found, found[quality.OTHER_HANDS_UNWANTED]) == (False, 0.75)
    without = {figure.name for figure in quality.summarise(study, drawn)}
    assert without.isdisjoint({quality.FREE_FORM_RECALL, quality.OTHER_HANDS_RECALL, quality.OTHER_HANDS_UNWANTED})


def test_every_prompt_and_seed_has_its_own_noise() -> None:
    study = quality.Study(held_out_captions("held-out-quality", 2), free_form=[], other_hands=[], seeds=2, by_attribute=False)
    seeds: list[int] = []

    class Runtime:
        def generate(self, prompt: str, *, seed: int, candidate: str) -> Any:
            seeds.append(seed)
            return type("Result", (), {"pixels": np.zeros((1, 4, 4, 3), np.uint8)})

    class Judge:
        def look(self, pixels: Any, stated: Any) -> Finding:
            return Finding(probabilities=dict.fromkeys(stated, 0.5))

    scenario = quality.make_scenarios(["tiny-base@8"], study, "held-out-quality", with_targets=True)[0]
    measured = quality.measure_candidate(study, Judge(), Runtime(), scenario)  # type: ignore[arg-type]
    assert seeds == list(range(16))
    assert measured.figures[0].value == 0.5


def test_long_prompts_are_wrapped_on_the_sheet(tmp_path: Path) -> None:
    text = "a red house beside three pine trees " * 6
    assert all(len(line) < 60 for line in wrap(text, 15, 240))
    tile = Tile(pixels=np.zeros((32, 32, 3), np.uint8), score=0.9)
    draw_sheet(
        "Title", ["one", "two"], [SheetRow(text=text, remark="a free-form prompt", tiles=[tile, None])], tmp_path / "new" / "sheet.png"
    )
    assert (tmp_path / "new" / "sheet.png").stat().st_size > 1000
