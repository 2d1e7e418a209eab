"""F21: blanks in a table's header or names, and what else spreadsheets and people write, are read or named in the error."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from costroute_rt.error import LabelError
from costroute_rt.export.router.label_file import open_label_file
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.prompts import read_prompts
from tests.cli.conftest import Run

PLAIN = "prompt,candidate,score\na red house,fast,0.5\na red house,slow,0.75\n"
SAME = {
    "blanks after the commas": "prompt, candidate, score\na red house, fast, 0.5\na red house, slow, 0.75\n",
    "blanks on both sides": " prompt , candidate , score \na red house, fast , 0.5 \na red house, slow\t, 0.75\n",
    "quoted blanks": '" prompt ","candidate "," score"\n"a red house","fast "," 0.5"\n"a red house"," slow","0.75"\n',
    "blanks before quotes": 'prompt, "candidate", "score"\n"a red house", "fast", "0.5"\n"a red house", "slow", "0.75"\n',
    "upper case": PLAIN.replace("prompt,candidate,score", "Prompt,CANDIDATE,Score"),
    "byte order mark": "\ufeff" + PLAIN,
    "byte order mark before a quote": '\ufeff"prompt","candidate","score"\n' + PLAIN.partition("\n")[2],
    "two byte order marks": "\ufeff\ufeff" + PLAIN,
    "no-break spaces": PLAIN.replace("candidate,score", "\u00a0candidate,score\u00a0").replace("fast,", "fast\u00a0,"),
    "Windows line ends": PLAIN.replace("\n", "\r\n"),
    "old Mac line ends": PLAIN.replace("\n", "\r"),
    "no line end": PLAIN.rstrip("\n"),
    "tabs": PLAIN.replace(",", "\t"),
    "semicolons": PLAIN.replace(",", ";"),
    "bars": PLAIN.replace(",", "|"),
    "Excel names its separator": "sep=;\r\n" + PLAIN.replace(",", ";"),
    "Excel names a comma": '"sep=,"\n' + PLAIN,
    "Excel names a tab": "sep=\t\r\n" + PLAIN.replace(",", "\t"),
    "empty columns at the end": PLAIN.replace("\n", ",,\n"),
    "empty cells after the header's": PLAIN.replace("5\n", "5,,,\n"),
    "numbered rows": ",prompt,candidate,score\n0,a red house,fast,0.5\n1,a red house,slow,0.75\n",
    "empty lines": "\n  \n" + PLAIN.replace("\n", "\n\n,,\n"),
    "other columns with blanks": PLAIN.replace("score\n", "score, my notes \n").replace("5\n", "5,x\n"),
}


@pytest.mark.parametrize("name", SAME)
def test_f21_the_same_table_is_read(tmp_path: Path, name: str) -> None:
    path, packed = tmp_path / "labels.csv", tmp_path / "labels.csv.gz"
    path.write_text(SAME[name], encoding="utf-8", newline="")
    packed.write_bytes(gzip.compress(SAME[name].encode()))
    for each in (path, packed):
        found = [(label.prompt, label.candidate, label.score) for label in LabelTable.open(each).labels]
        assert found == [("a red house", "fast", 0.5), ("a red house", "slow", 0.75)]


@pytest.mark.parametrize(
    "text",
    [
        "Prompt , category\na lake, b\n",
        "sep=;\nprompt;category\na lake;b\n",
        "\ufeffPROMPT\tcategory\t\na lake\tb\t\n",
        "prompt,category\r\na lake,b\r\n",
    ],
)
def test_f21_prompts_are_read_in_the_same_way(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text(text, encoding="utf-8", newline="")
    (row,) = read_prompts(path)
    assert (row.prompt, row.extra["category"].strip()) == ("a lake", "b")


def test_f21_blanks_in_a_prompt_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("prompt,candidate,score\n  a lake ,fast,1\n")
    assert LabelTable.open(path).prompts == ("  a lake ",)


REFUSED = {
    "another name": ("prompt,candidate,scores\nx,a,1\n", "no column score, only prompt, candidate, scores (did you mean 'scores'?)"),
    "names within names": ("the prompt,candidate,score\nx,a,1\n", "it has no column prompt, only 'the prompt', candidate, score"),
    "invisible character": (
        "pro\u200bmpt,candidate,score\nx,a,1\n",
        "only 'pro\\u200bmpt', candidate, score (did you mean",
    ),
    "separated by blanks": ("prompt candidate score\nx a 1\n", "no column prompt, candidate, score, only 'prompt candidate score'"),
    "column twice by case": (
        "Prompt,PROMPT,candidate,score\nx,y,a,1\n",
        "two columns have the same name: prompt, prompt, candidate, score",
    ),
    "column twice by blanks": ("prompt,candidate,score, score\nx,a,1,2\n", "two columns have the same name"),
    "decimal commas": ("prompt;candidate;score\nx;a;0,5\n", "line 2: score is '0,5', which is not a number; write 0.5"),
    "text with a comma": (
        "prompt,candidate,score\na house, red,fast,1\n",
        "line 2: it has 4 fields instead of 3; is it incomplete",
    ),
    "NUL": ("prompt,candidate,score\nx,a,1\ny\0,a,1\n", "line 3: it has a NUL character"),
    "only blanks": ("\n , \n\n", "the file is empty"),
    "only a separator": ("sep=;\n", "the file is empty"),
    "blank after quotes": ('"prompt" ,"candidate","score"\nx,a,1\n', "line 1: it is not CSV"),
    "line after named separator": ("sep=;\nprompt;candidate;score\nx;a;good\n", "line 3: score is 'good'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_f21_what_is_wrong_can_be_seen_in_the_message(tmp_path: Path, name: str) -> None:
    text, problem = REFUSED[name]
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(LabelError) as caught:
        LabelTable.open(path)
    assert problem in str(caught.value)


def test_f21_utf16_is_named(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-16-le"):
        path = tmp_path / "labels.csv"
        path.write_text(PLAIN, encoding=encoding)
        with pytest.raises(LabelError, match="UTF-8"):
            LabelTable.open(path)


@pytest.mark.parametrize("header", ["prompt, candidate, score", "Prompt,Candidate,Score", "\ufeffprompt,candidate ,score"])
def test_f21_labelling_continues_such_a_table(tmp_path: Path, header: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"{header}\na lake,fast,1\n", encoding="utf-8")
    with open_label_file(path) as table:
        assert table.content.done == {("a lake", "fast", 0)}
        table.append({"prompt": "a lake", "candidate": "slow", "score": "0.5"}, ("a lake", "slow", 0))
    assert [label.candidate for label in LabelTable.open(path).labels] == ["fast", "slow"]


def test_f21_labelling_refuses_to_add_to_a_table_with_another_separator(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(PLAIN.replace(",", ";"))
    with pytest.raises(LabelError, match=r"its columns are 'prompt;candidate;score'.*separated by commas"), open_label_file(path):
        pass


def test_f21_a_misspelled_candidate_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(PLAIN.replace("fast", "Fast@2"))
    with pytest.raises(LabelError, match=r"no labels of fast@2, only of Fast@2, slow \(did you mean 'Fast@2'\?\)"):
        LabelTable.open(path).cells(["fast@2", "slow"])


def test_f21_a_few_misspelled_rows_are_named(run: Run, built: Path, tiny_bundle: Path) -> None:
    names = ("tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8")
    rows = [f"house {index},{name},0.{index}{place}" for index in range(3) for place, name in enumerate(names)]
    Path("labels.csv").write_text("\n".join(["prompt, candidate, score", *rows, "house 9,tiny-bsae@8,1"]) + "\n")
    done = run("fit-router", "--bundle", tiny_bundle, "--labels", "labels.csv", "--output", "routed", "--encoder", "hashed")
    assert done.exit_code == 0, done.stderr
    assert "labels of tiny-bsae@8 are left out: the bundle has no such candidate (did you mean 'tiny-base@8'?)" in done.stderr
