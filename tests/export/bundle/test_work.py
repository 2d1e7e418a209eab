"""The folder in which a bundle is made: what is done stays for the same export, and nobody else can put anything there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from costroute_rt.error import BundleError, OutputError
from costroute_rt.export.bundle.work import open_work, work_folder


def make_part(target: Path, key: str, name: str = "unet") -> None:
    """Finishes a part and stops before the bundle is complete."""
    with suppress(KeyboardInterrupt), open_work(target, key) as work:
        (work.clear(name) / "step.onnx").write_bytes(b"graph")
        work.finish_part(name, name, {"graphs": {}})
        raise KeyboardInterrupt


def test_a_finished_part_is_found_again_with_the_same_key(tmp_path: Path) -> None:
    make_part(tmp_path / "a.bundle", "key")
    with open_work(tmp_path / "a.bundle", "key") as work:
        assert work.find_part("unet") == {"graphs": {}}
        assert work.find_part("vae") is None
        work.move_to(tmp_path / "a.bundle")
    assert (tmp_path / "a.bundle" / "unet" / "step.onnx").read_bytes() == b"graph"
    assert os.listdir(tmp_path) == ["a.bundle"]


def test_work_for_another_key_is_discarded(tmp_path: Path) -> None:
    make_part(tmp_path / "a.bundle", "key")
    with open_work(tmp_path / "a.bundle", "other") as work:
        assert work.find_part("unet") is None
        assert not list(work.bundle.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "missing", "record", "deep"])
def test_a_damaged_part_is_made_again(tmp_path: Path, damage: str) -> None:
    make_part(tmp_path / "a.bundle", "key")
    root = work_folder(tmp_path / "a.bundle")
    graph, record = root / "bundle" / "unet" / "step.onnx", root / "parts" / "unet"
    if damage == "truncated":
        graph.write_bytes(b"gra")
    elif damage == "missing":
        graph.unlink()
    else:
        record.write_text("[]" if damage == "record" else "[" * 100_000)
    with open_work(tmp_path / "a.bundle", "key") as work:
        assert work.find_part("unet") is None


def test_a_source_that_cannot_be_exported_leaves_nothing(tmp_path: Path) -> None:
    with suppress(BundleError), open_work(tmp_path / "a.bundle", "key") as work:
        work.finish_part("unet", work.clear("unet").name, {})
        raise BundleError("model", "its weights are NaN", "download it again")
    assert not os.listdir(tmp_path)


def test_two_exports_to_one_place_are_refused(tmp_path: Path) -> None:
    with open_work(tmp_path / "a.bundle", "key"), pytest.raises(OutputError, match="another process is making it"):
        open_work(tmp_path / "a.bundle", "key").__enter__()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes and asks for special rights for links")
@pytest.mark.parametrize("planted", ["link", "open to all", "file"])
def test_a_folder_that_others_could_have_filled_is_refused(tmp_path: Path, planted: str) -> None:
    root = work_folder(tmp_path / "a.bundle")
    if planted == "link":
        (tmp_path / "elsewhere").mkdir()
        root.symlink_to(tmp_path / "elsewhere")
    elif planted == "file":
        root.write_bytes(b"")
    else:
        root.mkdir()
        root.chmod(0o777)
    with pytest.raises(OutputError, match="not this user's own folder"):
        open_work(tmp_path / "a.bundle", "key").__enter__()


def test_what_is_replaced_comes_back_if_the_move_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bundle"
    target.mkdir()
    (target / "old").write_bytes(b"")
    replace = os.replace

    def fail_second(source: Path, place: Path) -> None:
        if Path(source).name == "bundle":
            raise OSError(5, "Input/output error")
        replace(source, place)

    with open_work(target, "key") as work:
        monkeypatch.setattr(os, "replace", fail_second)
        with pytest.raises(OSError, match="Input/output"):
            work.move_to(target)
    assert os.listdir(target) == ["old"]
