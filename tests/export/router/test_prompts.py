"""The table of prompts to label."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from costroute_rt.error import LabelError
from costroute_rt.export.router.prompts import read_prompts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prompts.csv"


def test_extra_columns_are_kept_and_stated_is_parsed(path: Path) -> None:
    text = 'category,prompt,stated,prompt_id\nshort,"a house, red","{""house"": ""red"", ""birds"": 1}",p0\nlong,a lake,,p1\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    first, second = read_prompts(path)
    assert (first.prompt_id, first.prompt, first.extra) == ("p0", "a house, red", {"category": "short"})
    assert first.stated == {"house": "red", "birds": 1}
    assert second.stated is None
    packed = path.with_name("prompts.csv.gz")
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_prompts(packed) == [first, second]


def test_a_prompt_is_its_own_id_by_default_and_counts_once(path: Path) -> None:
    path.write_text("prompt\nx\ny\nx\n", encoding="utf-8")
    assert [(row.prompt_id, row.prompt) for row in read_prompts(path)] == [("x", "x"), ("y", "y")]


BAD = {
    "empty file": ("", "line 1: the file is empty"),
    "no prompts": ("prompt\n", "it has no prompts"),
    "no column": ("text\nx\n", "it has no column prompt, only text"),
    "column twice": ("prompt,a,a\nx,1,2\n", "two columns have the same name"),
    "column of labels": ("prompt,score\nx,1\n", "it has the column score, which labelling writes"),
    "column of scores": ("prompt,score_clip\nx,1\n", "it has the column score_clip"),
    "empty prompt": ("prompt,category\n ,a\n", "line 2: the prompt is empty"),
    "control character": ("prompt\nx\x07\n", "line 2: the prompt has a control character"),
    "short row": ("prompt,category\nx\n", "line 2: it has 1 fields instead of 2"),
    "long row": ("prompt,category\nx,a,b\n", "line 2: it has 3 fields instead of 2"),
    "stated no json": ("prompt,stated\nx,red\n", "line 2: stated is not JSON"),
    "stated no object": ('prompt,stated\nx,"[1]"\n', "line 2: stated is [1], which is not a JSON object"),
    "two prompts of one id": ("prompt_id,prompt\np,x\np,y\n", "line 3: prompt_id 'p' stands for two prompts"),
    "open quote": ('prompt\n"x\n', "it is not CSV"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_used_is_refused(path: Path, name: str) -> None:
    text, problem = BAD[name]
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabelError) as caught:
        read_prompts(path)
    assert problem in str(caught.value)


def test_a_missing_table_is_a_label_error(path: Path) -> None:
    with pytest.raises(LabelError, match="it does not exist"):
        read_prompts(path)
