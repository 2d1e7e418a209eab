"""V11: locks and temporary files that are links leave the links' targets alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from costroute_rt.engines.machine.durable import write_file
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError, LabelError, OutputError
from costroute_rt.export.router.label_file import open_label_file
from tests.security.small_store import KEY, write_engine

pytestmark = pytest.mark.skipif(os.name == "nt", reason="makes links, which Windows allows administrators alone")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim.txt"
    path.write_text("years of work")
    return path


def test_a_lock_that_is_a_link_is_an_error(tmp_path: Path, victim: Path) -> None:
    store = write_engine(tmp_path / "store")[0]
    (store.root / f"locks/{KEY.digest}.lock").unlink(missing_ok=True)
    (store.root / f"locks/{KEY.digest}.lock").symlink_to(victim)
    with pytest.raises(EngineError, match="the store cannot be used"), store.lock(KEY.digest):
        pass
    assert victim.read_text() == "years of work"


def test_a_holders_record_that_is_a_link_is_replaced(tmp_path: Path, victim: Path) -> None:
    store = write_engine(tmp_path / "store")[0]
    (store.root / f"locks/{KEY.digest}.holder").symlink_to(victim)
    with store.lock(KEY.digest):
        assert not (store.root / f"locks/{KEY.digest}.holder").is_symlink()
    assert victim.read_text() == "years of work"


@pytest.mark.parametrize("folder", ["locks", "engines", "costs"])
def test_a_folder_of_the_store_that_leads_to_a_place_that_others_can_write_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / folder).symlink_to(tmp_path / "open")
    if folder == "costs":
        (tmp_path / "store/costs" / f"{KEY.digest}.json").touch()
        assert len(list((tmp_path / "open").iterdir())) == 1
    with pytest.raises(EngineError, match="all users can write it"):
        write_engine(tmp_path / "store")
    assert len(list((tmp_path / "open").iterdir())) == (folder == "costs")


@pytest.mark.parametrize("name", ["trust.json", "costs.json"])
def test_a_file_that_is_a_link_is_replaced_and_not_followed(tmp_path: Path, victim: Path, name: str) -> None:
    (tmp_path / name).symlink_to(victim)
    write_file(tmp_path / name, b"new")
    assert (victim.read_text(), (tmp_path / name).read_bytes()) == ("years of work", b"new")


def test_the_lock_of_a_label_file_that_is_a_link_is_an_error(tmp_path: Path, victim: Path) -> None:
    for name in ("labels.csv.lock", ".labels.csv.lock"):
        (tmp_path / name).symlink_to(victim)
    with pytest.raises((OutputError, LabelError)):
        open_label_file(tmp_path / "labels.csv").__enter__()
    assert victim.read_text() == "years of work"


def test_leftovers_that_are_links_are_left_alone(tmp_path: Path, victim: Path) -> None:
    store = write_engine(tmp_path / "store")[0]
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (store.folder / f".{KEY.digest}.abc").symlink_to(tmp_path / "kept")
    store.sweep()
    assert (tmp_path / "kept/file").exists()
    assert [each.is_good for each in Store.open(store.root).verify()] == [True]
