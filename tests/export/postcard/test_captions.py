"""Tables of captions for labelling."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from costroute_rt.export.postcard.captions import BANDS, band_of, banded, main
from costroute_rt.export.postcard.scene import ATTRIBUTES


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_categories_alternate_and_have_equal_numbers(tmp_path: Path) -> None:
    assert main(["--count", "30", "--seed", "1", "--out", str(tmp_path / "captions.csv")]) == 0
    table = rows(tmp_path / "captions.csv")
    assert list(table[0]) == ["prompt_id", "prompt", "category", "stated"]
    assert Counter(row["category"] for row in table) == {"1-2": 8, "3-4": 8, "5-6": 7, "7+": 7}
    assert [row["category"] for row in table[:4]] == list(BANDS)
    assert len({row["prompt"] for row in table}) == len({row["prompt_id"] for row in table}) == 30
    for row in table:
        stated = json.loads(row["stated"])
        assert band_of(len(stated)) == row["category"]
        assert all(value in ATTRIBUTES[name] for name, value in stated.items())


def test_captions_depend_on_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        main(["--count", "8", "--seed", seed, "--out", str(tmp_path / name)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


def test_prompts_of_another_table_are_excluded(tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    main(["--count", "8", "--out", str(first)])
    main(["--count", "8", "--out", str(second), "--exclude", str(first)])
    assert {row["prompt"] for row in rows(first)}.isdisjoint(row["prompt"] for row in rows(second))


def test_prompts_of_several_tables_are_excluded_in_any_letter_case(tmp_path: Path) -> None:
    first, upper_case, second, third = (tmp_path / f"{name}.csv" for name in ("first", "upper_case", "second", "third"))
    main(["--count", "8", "--out", str(first)])
    upper_case.write_text("prompt\n" + "".join(f'"{row["prompt"].upper()}"\n' for row in rows(first)), encoding="utf-8")
    main(["--count", "8", "--out", str(second), "--exclude", str(upper_case)])
    main(["--count", "8", "--out", str(third), "--exclude", str(upper_case), "--exclude", str(second)])
    texts = [row["prompt"].casefold() for table in (first, second, third) for row in rows(table)]
    assert len(set(texts)) == 24


def test_unreadable_and_unwritable_files_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "4", "--out", str(tmp_path / "no" / "captions.csv")]) == 7
    assert main(["--count", "4", "--out", str(tmp_path / "captions.csv"), "--exclude", str(tmp_path / "none.csv")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in errors] == [True, True]
    assert not list(tmp_path.iterdir())


def test_fewer_captions_of_a_band_are_the_first_of_more() -> None:
    few, many = banded("some-name", 3), banded("some-name", 6)
    assert all(few[band] == many[band][:3] for band in BANDS)
