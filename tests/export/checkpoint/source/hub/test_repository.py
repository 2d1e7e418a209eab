from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint.source.hub.repository import (
    HubName,
    check_revision,
    looks_like_hub_id,
    read_hub_name,
    read_place,
)


@pytest.mark.parametrize(
    ("text", "repo_id", "file", "short"),
    [
        ("stabilityai/sdxl-turbo", "stabilityai/sdxl-turbo", None, "sdxl-turbo"),
        ("Lykon/dreamshaper-8.5", "Lykon/dreamshaper-8.5", None, "dreamshaper-8.5"),
        ("a/b/c.safetensors", "a/b", "c.safetensors", "c"),
        ("a/b/split files/c v1.0 (x).ckpt", "a/b", "split files/c v1.0 (x).ckpt", "c v1.0 (x)"),
    ],
)
def test_names_of_repositories_and_files_are_read(text: str, repo_id: str, file: str | None, short: str) -> None:
    name = read_hub_name(text)
    assert name == HubName(repo_id=repo_id, file=file)
    assert name.short == short


NO_NAMES = [
    "",
    "sdxl",
    "/a/b",
    "./a/b",
    "../a",
    "~/a",
    "a/",
    "a/b/",
    "a//b",
    "a/b/c",
    "models/x.safetensors",
    "a/b--c",
    "a/b..c",
    "a/b.git",
]
NO_NAMES += ["a/b\n", "a/-b", "a/b-", "a\\b/c", "https://huggingface.co/a/b", "a/b/../c.safetensors", "a/b//c.safetensors", "é/b"]


@pytest.mark.parametrize("text", [*NO_NAMES, "a/" + "b" * 97])
def test_other_texts_name_no_repository(text: str) -> None:
    assert read_hub_name(text) is None


def test_an_existing_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert looks_like_hub_id("owner/name")
    assert read_place("owner/name") == HubName(repo_id="owner/name")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not looks_like_hub_id("owner/name")
    assert read_place("owner/name") == Path("owner/name")


@pytest.mark.parametrize(("text", "remedy"), [("./sd15", "OWNER/NAME"), ("https://huggingface.co/a/b", "instead of the address")])
def test_neither_path_nor_repository_is_refused(text: str, remedy: str) -> None:
    with pytest.raises(BundleError, match=remedy):
        read_place(text)


@pytest.mark.parametrize("revision", ["", "..", "a/../b", "/a", "a//b", "a b", "a\n", "x" * 201])
def test_revisions_that_are_no_part_of_a_path_are_refused(revision: str) -> None:
    with pytest.raises(ConfigError, match="revision"):
        check_revision(revision)


def test_revisions_with_slashes_are_taken() -> None:
    assert check_revision("refs/pr/1") == "refs/pr/1"
