"""F20: what is not a bundle is named for what it is, with the way from there to a bundle."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from costroute_rt import Bundle
from costroute_rt.error import BundleError, Reason
from tests.cli.conftest import Run

EXPORT = "costroute-rt export SOURCE -o NEW.bundle"


@pytest.fixture
def places(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what people give as a bundle."""
    root = tmp_path / "places"
    for folder in ("checkpoint/unet", "cache/models--a--b/snapshots/12ab", "weights", "parts/vae", "empty", "notes"):
        (root / folder).mkdir(parents=True)
    for file in (
        "checkpoint/model_index.json", "cache/models--a--b/snapshots/12ab/model_index.json", "weights/model.fp16.safetensors",
        "model.safetensors", "model.ckpt", "model.GGUF", "model.onnx", "bundle.zip", "bundle.tar.gz", "notes.txt", "notes/a.txt",
    ):  # fmt: skip
        (root / file).write_text("{}")
    shutil.copytree(tiny_bundle, root / "one/tiny")
    shutil.copytree(tiny_bundle, root / "two/first")
    shutil.copytree(tiny_bundle, root / "two/second")
    monkeypatch.chdir(root)
    return root


CHECKPOINTS = [
    "checkpoint", "checkpoint/", "./checkpoint", "checkpoint/model_index.json", "cache", "cache/models--a--b",
    "cache/models--a--b/snapshots/12ab", "weights", "parts", "model.safetensors", "model.ckpt", "model.GGUF", "model.onnx",
    "runwayml/stable-diffusion-v1-5", "stabilityai/sd-turbo/", "https://huggingface.co/runwayml/stable-diffusion-v1-5", "hf://a/b",
    "https://huggingface.co/stabilityai/sdxl-turbo/tree/main",
]  # fmt: skip


@pytest.mark.parametrize("path", CHECKPOINTS)
@pytest.mark.usefixtures("places")
def test_f20_a_checkpoint_has_to_be_exported_first(path: str, run: Run, places: Path) -> None:
    os.chdir(places)
    for command in (("gen", "a lake"), ("route", "a lake"), ("build-engines",), ("engines", "list"), ("gen", "--prompts", "x")):
        done = run(*command, "--bundle", path)
        assert done.exit_code == 4
        assert done.stderr.startswith(f"error: {path.rstrip('/').removeprefix('./')}: ")
        assert "export" in done.stderr.partition("(")[0]
        assert EXPORT in done.stderr
        assert "pip install" not in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "problem", "remedy"),
    [
        ("empty", "the folder is empty", "name the folder of a bundle"),
        ("one", "it is not a bundle, but the folder tiny in it is", "name that folder: one/tiny"),
        ("two", "it is not a bundle, but holds 2 of them", "name one of these folders"),
        ("one/tiny/vae", "it is a part of a bundle", "name the whole bundle: one/tiny"),
        ("one/tiny/manifest.json", "it is a file of a bundle", "name its folder: one/tiny"),
        ("bundle.zip", "it is an archive, not a bundle", "unpack it and name the folder"),
        ("bundle.tar.gz", "it is an archive, not a bundle", "unpack it and name the folder"),
        ("notes.txt", "it is a file, but a bundle is a folder", "name the folder of a bundle"),
        ("notes", "it is not a bundle: it has no manifest.json", "check the path"),
        ("~/bundle", "no bundle directory exists here", f"if ~ stands for your home directory, write {os.path.expanduser('~/bundle')}"),
    ],
)
def test_f20_other_things_are_named_for_what_they_are(path: str, problem: str, remedy: str, places: Path, run: Run) -> None:
    os.chdir(places)
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert (caught.value.path, caught.value.reason) == (path, Reason.NOT_A_BUNDLE)
    assert (caught.value.problem, caught.value.remedy) == (problem.replace("/", os.sep), remedy.replace("/", os.sep))
    done = run("gen", "a lake", "--bundle", path)
    assert done.exit_code == 4
    assert "pip install" not in done.stderr


@pytest.mark.parametrize("path", ["missing", "./missing", "one/missing", "x" * 300, "\0", "a b/c d", "/missing/thing"])
def test_f20_a_path_that_does_not_exist_is_to_be_checked(path: str, places: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle directory exists here; check the path") as caught:
        Bundle.open(path)
    assert caught.value.reason is None


def test_f20_a_damaged_bundle_stays_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "tiny")
    (tmp_path / "tiny/manifest.json").unlink()
    with pytest.raises(BundleError, match="a bundle needs this file"):
        Bundle.open(tmp_path / "tiny")
