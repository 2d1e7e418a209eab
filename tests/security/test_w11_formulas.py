"""W11: a table of labels holds no formula for a spreadsheet to run, and is read back as it was."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest

from costroute_rt.export.router.csv_file import MARK, escape_formula, unescape_formula
from costroute_rt.export.router.label_file import open_label_file, read_content
from costroute_rt.export.router.labels import LabelTable

HEADER = "prompt,candidate,score\n"
FORMULAS = (
    '=HYPERLINK("http://evil.example","a")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "＝1+1",
    "＋1",
    "－1",
    "＠A",
)
PLAIN = ("a lake", "'a lake'", "-3", "+4.5", "-1e-3", "", "a = b", "'", "''", " =1")
ESCAPED = ("'=1", "''=1", "'-3", "'@x", "'\t")


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN, *ESCAPED])
def test_an_escaped_text_is_read_back_as_it_was(text: str) -> None:
    assert unescape_formula(escape_formula(text)) == text


@pytest.mark.parametrize("text", [*FORMULAS, *ESCAPED])
def test_no_formula_is_written(text: str) -> None:
    assert escape_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", PLAIN)
def test_numbers_and_other_texts_are_written_as_they_are(text: str) -> None:
    assert escape_formula(text) == text


def test_different_texts_stay_different() -> None:
    texts = ["".join(parts) for length in range(5) for parts in itertools.product("'=-1", repeat=length)]
    assert len({escape_formula(text) for text in texts}) == len(texts)


def test_a_prompt_that_is_a_formula_survives_labelling(tmp_path: Path) -> None:
    path, prompt = tmp_path / "labels.csv", FORMULAS[0]
    with open_label_file(path) as table:
        table.start(["prompt_id", "prompt", "=column", "candidate", "seed", "score", MARK])
        cells = {"prompt_id": prompt, "prompt": prompt, "=column": "@x", "candidate": "a@1", "seed": "0", "score": "-0.5", MARK: "f"}
        table.append(cells, (prompt, "a@1", 0))
    with open(path, newline="") as file:
        header, row = csv.reader(file)
    assert not any(cell.startswith(("=", "+", "@")) for cell in (*header, *row))
    (label,) = LabelTable.open(path).labels
    assert (label.prompt_id, label.prompt, label.score, label.extra["=column"]) == (prompt, prompt, -0.5, "@x")
    assert read_content(path).done == {(prompt, "a@1", 0)}


def test_a_table_of_others_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(HEADER + "'=1,a,0.5\n")
    assert LabelTable.open(tmp_path / "labels.csv").prompts == ("'=1",)
