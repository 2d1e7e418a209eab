from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt.cli.output import SLUG_LENGTH, Job, Names, slug_of
from costroute_rt.cli.prompt_file import Line
from costroute_rt.error import ConfigError, OutputError


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("A red house, by a lake!", "a-red-house-by-a-lake"),
        ("Été à la mer", "ete-a-la-mer"),
        ("../../etc/passwd", "etc-passwd"),
        ("夕焼け", "image"),
        ("", "image"),
    ],
)
def test_slug_keeps_ascii_letters_and_digits(prompt: str, slug: str) -> None:
    assert slug_of(prompt) == slug


def test_slug_is_cut_at_a_word_and_never_too_long() -> None:
    assert slug_of("lake " * 10_000) == "-".join(["lake"] * 9)
    assert len(slug_of("x" * 500)) == SLUG_LENGTH


def names(output: str | None, *, count: int = 1, many: bool = False) -> list[str]:
    lines = [Line(3, "a lake"), Line(7, "a house")] if many else [Line(1, "a lake")]
    pattern = Names.of(output, count=count, many=many)
    jobs = [Job(prompt=line.prompt, line=line.number, seed=5, indices=tuple(range(count))) for line in pattern.check_fields(lines, 5)]
    paths = [pattern.path(job, index) for job in jobs for index in job.indices]
    for path in paths:
        pattern.check_folder(path)
    return [str(path) for path in paths]


def test_names_of_one_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names(None) == ["a-lake-5.png"]
    assert names(None, count=2) == ["a-lake-5.png", "a-lake-6.png"]
    assert names("card.png") == ["card.png"]
    assert names("card.PNG", count=2) == ["card-1.PNG", "card-2.PNG"]
    assert names("{slug}_{seed}.png", count=2) == ["a-lake_5.png", "a-lake_6.png"]
    assert names(str(tmp_path)) == [str(tmp_path / "a-lake-5.png")]


def test_names_of_many_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names(None, many=True) == ["0003-a-lake.png", "0007-a-house.png"]
    assert names("new", many=True) == ["new/0003-a-lake.png", "new/0007-a-house.png"]
    assert names("new/", many=True, count=2)[:2] == ["new/0003-a-lake-1.png", "new/0003-a-lake-2.png"]
    assert names("{line}.png", many=True) == ["0003.png", "0007.png"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("output", "many"), [("card.bmp", False), ("card", False), ("card.png", True), ("{seed}.png", True)])
def test_names_that_cannot_work_are_refused(output: str, many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        names(output, many=many)


def test_folders_that_cannot_take_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="no such folder"):
        names(str(tmp_path / "missing" / "card.png"))
    with pytest.raises(OutputError, match="not a folder"):
        names(str(tmp_path / "file" / "card.png"))
    with pytest.raises(OutputError, match="not a folder"):
        names(f"{tmp_path}/file/", many=True)


@pytest.mark.parametrize("output", ["x" * 300 + "/", "a\0b/", "file/below/x-{line}.png", "dangling/"])
def test_folders_that_can_never_be_made_are_refused(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("dangling").symlink_to("missing/folder")
    with pytest.raises(OutputError):
        names(output, many=True)
