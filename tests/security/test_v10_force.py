"""V10: `--force` deletes bundles with nothing else in them, says which, and leaves everything else alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from costroute_rt.cli.main import cli
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.replacing import check_target
from costroute_rt.error import OutputError, Reason
from costroute_rt.routing.router_bundle import with_router
from tests.small_router import make_router


def seal(folder: Path, manifest: object) -> None:
    """A manifest with its hash, and nothing else that a bundle has."""
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest())


def extension(folder: Path) -> None:
    """A browser extension has a manifest.json, too."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "browser extension"}')
    (folder / "thesis.txt").write_text("years of work")


def rename_format(folder: Path) -> None:
    seal(folder, {**json.loads((folder / "manifest.json").read_bytes()), "format": "another"})


FOREIGN: dict[str, Callable[[Path], object]] = {
    "extension": extension,
    "file beside": lambda folder: (folder / "thesis.txt").write_text("years of work"),
    "file below": lambda folder: (folder / "vae/notes.txt").write_text("years of work"),
    "hidden folder": lambda folder: shutil.copytree(folder / "vae", folder / ".git"),
    "link to a folder": lambda folder: (folder / "link").symlink_to("vae"),
    "no hash": lambda folder: (folder / "manifest.sha256").unlink(),
    "another hash": lambda folder: (folder / "manifest.sha256").write_text("0" * 64),
    "another format": rename_format,
    "no object": lambda folder: seal(folder, []),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "manifest is a folder": lambda folder: ((folder / "manifest.json").unlink(), (folder / "manifest.json").mkdir()),
}


def contents(root: Path) -> list[tuple[str, bool]]:
    return sorted((str(path.relative_to(root)), path.is_file()) for path in root.rglob("*"))


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_a_mere_bundle_is_not_replaced(tiny_bundle: Path, tmp_path: Path, kind: str) -> None:
    target, bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "target")), Bundle.open(tiny_bundle)
    FOREIGN[kind](target)
    before = contents(target)
    make_router(bundle.pool).save(tmp_path / "fitted")
    with pytest.raises(OutputError, match="so it is not replaced"):
        with_router(bundle, tmp_path / "fitted", target, force=True)
    assert contents(target) == before


@pytest.mark.skipif(os.name == "nt", reason="makes a FIFO, which Windows does not have")
def test_a_fifo_for_a_manifest_does_not_stop_the_program(tiny_bundle: Path, tmp_path: Path) -> None:
    target = Path(shutil.copytree(tiny_bundle, tmp_path / "target"))
    (target / "manifest.sha256").unlink()
    os.mkfifo(target / "manifest.sha256")
    with pytest.raises(OutputError, match="not a regular file"):
        check_target(target, force=True)


def test_a_file_or_a_home_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("years of work")
    for target in (tmp_path / "file", tmp_path):
        with pytest.raises(OutputError, match="it is not a bundle, so it is not replaced"):
            check_target(target, force=True)


@pytest.mark.parametrize("damage", ["none", "a missing file", "a changed file"])
def test_a_bundle_is_replaced_even_if_it_is_damaged(tiny_bundle: Path, tmp_path: Path, damage: str) -> None:
    target, bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "target")), Bundle.open(tiny_bundle)
    if damage != "none":
        (target / "vae/decode.onnx").unlink()
    if damage == "a changed file":
        (target / "vae/decode.onnx").write_bytes(b"changed")
    replaced = check_target(target, force=True)
    assert replaced is not None
    assert f"family 'tiny', revision {bundle.revision!r}, with {len(bundle.files)} files" in replaced
    make_router(bundle.pool).save(tmp_path / "fitted")
    with_router(bundle, tmp_path / "fitted", target, force=True).verify()


def test_without_force_nothing_is_replaced(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        check_target(tiny_bundle, force=False)
    assert caught.value.reason is Reason.EXISTS
    assert check_target(tmp_path / "new", force=False) is None


def test_fit_router_refuses_before_any_work_and_says_what_it_replaces(tiny_bundle: Path, tmp_path: Path, home: Path) -> None:
    def run(target: Path) -> tuple[int, str]:
        done = CliRunner().invoke(
            cli, ["fit-router", "--bundle", str(tiny_bundle), "--labels", str(tmp_path / "missing.csv"), "-o", str(target), "--force"]
        )
        return done.exit_code, done.stderr

    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (tmp_path / "letters").mkdir()
    code, text = run(tmp_path / "letters")
    assert (code, "it is not a bundle, so it is not replaced" in text) == (7, True), text
    code, text = run(tmp_path / "bundle")
    assert (code, "will be replaced: the bundle of family 'tiny'" in text) == (2, True), text
    assert (tmp_path / "bundle/manifest.json").exists()
