"""Replacing a folder: all or nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.machine.durable import replacing_folder


def fill(target: Path, text: str, *, is_interrupted: bool = False) -> None:
    with replacing_folder(target) as folder:
        (folder / "file").write_text(text)
        if is_interrupted:
            raise KeyboardInterrupt


def test_a_folder_appears_with_its_parents(tmp_path: Path) -> None:
    fill(tmp_path / "some" / "where" / "target", "new")
    assert (tmp_path / "some/where/target/file").read_text() == "new"
    assert [path.name for path in (tmp_path / "some/where").iterdir()] == ["target"]


@pytest.mark.skipif(os.name == "nt", reason="modes are those of POSIX")
def test_a_folder_gets_the_modes_that_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        fill(tmp_path / "target", "new")
    finally:
        os.umask(before)
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o755


def test_an_existing_folder_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "target", "old")
    (tmp_path / "target" / "another").write_text("old")
    fill(tmp_path / "target", "new")
    assert {path.name: path.read_text() for path in (tmp_path / "target").iterdir()} == {"file": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_block_changes_nothing(tmp_path: Path, exists: bool) -> None:
    if exists:
        fill(tmp_path / "target", "old")
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "target", "half", is_interrupted=True)
    assert [path.name for path in tmp_path.iterdir()] == ["target"] * exists
    assert not exists or (tmp_path / "target/file").read_text() == "old"


def refuse_replacing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes `os.replace` fail for sources of these names."""
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if Path(source).name in names:
            raise OSError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "target", "old")
    refuse_replacing(monkeypatch, "new")
    with pytest.raises(OSError, match="Permission denied"):
        fill(tmp_path / "target", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target/file").read_text() == "old"


def test_a_folder_that_cannot_be_put_back_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "target", "old")
    refuse_replacing(monkeypatch, "new", "old")
    with pytest.raises(OSError, match="Permission denied"):
        fill(tmp_path / "target", "new")
    (staging,) = tmp_path.iterdir()
    assert [path.name for path in staging.iterdir()] == ["old"]
    assert (staging / "old/file").read_text() == "old"
