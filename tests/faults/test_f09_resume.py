"""F9: a run is resumed by what the existing images say about themselves, not by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from costroute_rt import read_settings
from costroute_rt.cli.resume import Wanted
from tests.cli.conftest import fake_device, invoke

LONG = "a very long description of a red house by a lake with snowy mountains behind "
"""The file's name holds only its beginning."""


class Runs:
    """Runs `gen --prompts` again and again in one folder, each time on a new fake device."""

    def __init__(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bundle, self._monkeypatch = bundle, monkeypatch

    def __call__(self, lines: str, *options: object) -> Any:
        fake_device(self._bundle, self._monkeypatch)
        done = invoke("gen", "--bundle", self._bundle, "--prompts", "-", "-o", "out", *options, stdin=lines)
        assert "a bug" not in done.stderr
        return done


@pytest.fixture
def again(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.chdir(tmp_path)
    return Runs(tiny_bundle, monkeypatch)


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("out").iterdir()}


def test_f9_the_same_command_makes_nothing_again(again: Runs) -> None:
    again("a lake\na house\n")
    before = contents()
    done = again("a lake\na house\n")
    assert (done.exit_code, done.stdout, contents()) == (0, "", before)
    assert "2 lines kept" in done.stderr


def test_f9_a_new_end_of_a_long_line_makes_its_image_again(again: Runs) -> None:
    again(f"a lake\n{LONG}at noon\n")
    names = contents().keys()
    done = again(f"a lake\n{LONG}at midnight\n")
    assert contents().keys() == names
    assert sorted(read_settings(path)["prompt"] for path in Path("out").iterdir()) == ["a lake", f"{LONG}at midnight"]
    assert "1 image made (1 again, because existing files had other settings); 1 line kept" in done.stderr


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ((), ("--seed", 3), 0),
        (("--seed", 3), ("--seed", 3), 1),
        (("--seed", 3), (), 1),
        (("--seed", 3), ("--seed", 4), 0),
        ((), ("--candidate", "base@8"), 1),
        ((), ("--candidate", "turbo@1"), 0),
        (("--candidate", "turbo@1"), (), 1),
        ((), ("--negative-prompt", "snow"), 0),
        (("--negative-prompt", "snow"), ("--negative-prompt", "snow"), 1),
        (("--negative-prompt", "snow"), (), 0),
        ((), ("--height", 64, "--width", 64), 1),
        ((), ("--max-ms", 5000), 1),
        ((), ("--overwrite",), 0),
    ],
    ids=str,
)
def test_f9_an_image_is_kept_only_with_the_settings_that_are_wanted(
    first: tuple[object, ...], second: tuple[object, ...], kept: int, again: Runs
) -> None:
    assert again("a lake\n", *first).exit_code == 0
    done = again("a lake\n", *second)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("\n") == 1 - kept


SETTINGS = {
    "prompt": "a lake", "family": "tiny", "revision": "1", "height": 64, "width": 64, "seed": 7, "candidate": "turbo@1",
    "negative_prompt": None, "guidance_scale": 1.0,
}  # fmt: skip
WANTED = Wanted(sources={"turbo@1": ("tiny", "1", 64, 64)}, candidate=None, negative_prompt=None, may_ignore_negative=True)


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a sea"}, {"family": "x"}, {"revision": "2"}, {"height": 128}, {"width": None}, {"seed": 8}, {"prompt": ["a lake"]}],
)
def test_f9_every_setting_counts(change: dict[str, Any]) -> None:
    assert WANTED.allows(SETTINGS, "a lake", 7)
    assert not WANTED.allows({**SETTINGS, **change}, "a lake", 7)


def test_f9_settings_that_are_missing_are_not_the_wanted_ones() -> None:
    assert not WANTED.allows({}, "a lake", None)


def test_f9_the_missing_images_of_a_line_continue_the_seeds_of_the_others(again: Runs) -> None:
    again("a lake\n", "--count", 3)
    seeds = {path.name: read_settings(path)["seed"] for path in Path("out").iterdir()}
    for missing in ("0001-a-lake-1.png", "0001-a-lake-3.png"):
        Path("out", missing).unlink()
    assert again("a lake\n", "--count", 3).stdout.count("\n") == 2
    assert {path.name: read_settings(path)["seed"] for path in Path("out").iterdir()} == seeds


def test_f9_files_of_others_are_replaced_only_on_request(again: Runs) -> None:
    Path("out").mkdir()
    Path("out/0001-a-lake.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = again("a lake\na house\n")
    assert done.exit_code == 7
    assert "0001-a-lake.png: it exists and was not made by costroute-rt" in done.stderr
    assert contents()["0001-a-lake.png"] == b"\x89PNG\r\n\x1a\n"
    assert len(contents()) == 2
    assert again("a lake\na house\n", "--overwrite").exit_code == 0
    assert read_settings("out/0001-a-lake.png")["prompt"] == "a lake"


@pytest.mark.parametrize("share", [0.99, 0.9])
def test_f9_an_image_that_was_cut_is_made_again(share: float, again: Runs) -> None:
    again("a lake\n", "--seed", 3)
    path = Path("out/0001-a-lake.png")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    again("a lake\n", "--seed", 3)
    read_settings(path)
    assert len(path.read_bytes()) >= len(whole) - 20  # the timings in it vary


def test_f9_a_pipe_in_the_place_of_an_image_is_not_read(again: Runs) -> None:
    import os

    if not hasattr(os, "mkfifo"):
        pytest.skip("makes a named pipe")
    Path("out").mkdir()
    os.mkfifo("out/0001-a-lake.png")
    assert again("a lake\n").exit_code == 7


def test_f9_equal_lines_give_different_images(again: Runs) -> None:
    again("a lake\na lake\n")
    first, second = contents().values()
    assert first != second


def test_f9_a_run_that_was_cancelled_continues(again: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from costroute_rt import Runtime

    generate = Runtime.generate

    def cancelled_at_the_house(self: Runtime, prompt: str, **options: Any) -> Any:
        if prompt == "a house":
            raise KeyboardInterrupt
        return generate(self, prompt, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Runtime, "generate", cancelled_at_the_house)
        done = again("a lake\na house\na tree\n")
    assert done.exit_code == 130
    assert done.stderr == "1 image made; ended early: the same command continues\n\nerror: cancelled\n"
    done = again("a lake\na house\na tree\n")
    assert (done.exit_code, done.stdout.count("\n")) == (0, 2)
