"""The store loads only what was completely and rightly written."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import filelock
import pytest

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.building.lookup import read_cost
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.machine import durable
from costroute_rt.engines.store import store as store_module
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError, EngineError, Reason, StoreFullError
from tests.engines.conftest import build, flip_byte


def _folder(store: Store, graph: str = "tiny/base/guided_step") -> Path:
    return next(stored.path for stored in store.engines() if stored.key.graph == graph)


def test_the_store_is_where_asked(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Store.open().root == home
    assert Store.open(tmp_path / "given").root == tmp_path / "given"
    monkeypatch.delenv("COSTROUTE_HOME")
    assert "costroute-rt" in str(Store.open().root)


def test_an_empty_store_answers_and_writes_nothing(home: Path) -> None:
    store = Store.open()
    assert (store.engines(), store.verify(), store.size_bytes(), store.sweep()) == ([], [], 0, [])
    assert not home.exists()


def test_a_built_store_is_listed_and_verified(built_home: Path) -> None:
    store = Store.open(built_home)
    graphs = [stored.key.graph for stored in store.engines()]
    assert graphs == ["tiny/base/condition", "tiny/base/guided_step", "tiny/text_encoder/encode", "tiny/turbo/step", "tiny/vae/decode"]
    assert all(found.is_good for found in store.verify())
    assert 0 < sum(stored.size_bytes for stored in store.engines()) < store.size_bytes()


@pytest.mark.parametrize("name", ["model.onnx", "model.data", "manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("damage", ["flip first", "flip", "flip last", "truncate", "remove"])
def test_a_damaged_engine_is_named_not_loaded_and_repaired_by_a_build(tiny_bundle: Path, store_copy: Store, name: str, damage: str) -> None:
    path, bundle = _folder(store_copy) / name, Bundle.open(tiny_bundle, verify=False)
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1] if name != "manifest.sha256" else b"")
    else:
        flip_byte(path, {"flip first": 0.0, "flip": 0.5, "flip last": 1.0}[damage])
    if (name, damage) == ("manifest.sha256", "flip last"):
        open_engine(bundle, store_copy, "tiny/base/guided_step", Setup(threads=1)).close()  # the newline at the end means nothing
        return
    with pytest.raises(EngineError, match="build the engine again") as caught:
        open_engine(bundle, store_copy, "tiny/base/guided_step", Setup(threads=1))
    assert ("manifest" if "manifest" in name else path.name) in str(caught.value.path)
    assert (caught.value.reason, caught.value.engine) == (Reason.DAMAGED, "tiny/base/guided_step")
    assert [found.digest for found in store_copy.verify() if found.damage] == [path.parent.name]

    reports = build(bundle, store_copy, Setup(threads=1), measure=False)
    assert [report.engine for report in reports if report.built] == ["tiny/base/guided_step"]
    open_engine(bundle, store_copy, "tiny/base/guided_step", Setup(threads=1)).close()


def test_damaged_costs_are_refused(tiny_bundle: Path, store_copy: Store) -> None:
    path, bundle = _folder(store_copy) / "costs.json", Bundle.open(tiny_bundle)
    whole = path.read_bytes()
    for at in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95):
        flip_byte(path, at)
        with pytest.raises(EngineError, match=r"costs\.json.*profile the engines"):
            read_cost(bundle, store_copy, "tiny/base/guided_step", Setup(threads=1))
        path.write_bytes(whole)
    path.write_bytes(whole[:-20])
    with pytest.raises(EngineError, match="profile the engines"):
        read_cost(bundle, store_copy, "tiny/base/guided_step", Setup(threads=1))


def test_an_engine_moved_under_another_key_is_refused(tiny_bundle: Path, store_copy: Store) -> None:
    right, wrong = _folder(store_copy), _folder(store_copy, "tiny/turbo/step")
    shutil.rmtree(right)
    wrong.rename(right)
    with pytest.raises(EngineError, match="belongs to another engine"):
        open_engine(Bundle.open(tiny_bundle), store_copy, "tiny/base/guided_step", Setup(threads=1))


def test_remove_wants_one_engine(store_copy: Store) -> None:
    digest = _folder(store_copy).name
    with pytest.raises(EngineError, match="no engines"):
        store_copy.remove("zz")
    with pytest.raises(EngineError, match="no engines"):
        store_copy.remove("")
    assert store_copy.remove(digest[:8]).key.graph == "tiny/base/guided_step"
    assert digest not in [stored.digest for stored in store_copy.engines()]
    assert not list(store_copy.folder.glob(".*"))


def test_a_damaged_engine_can_be_removed(store_copy: Store) -> None:
    folder = _folder(store_copy)
    flip_byte(folder / "manifest.json")
    assert store_copy.remove(folder.name).quarantined == "damaged"
    assert not folder.exists()


def test_leftovers_are_swept_unless_someone_is_building(store_copy: Store) -> None:
    digest = _folder(store_copy).name
    leftover = store_copy.folder / f".{digest}.abc"
    leftover.mkdir()
    (leftover / "model.onnx").write_bytes(b"half")
    with store_copy.lock(digest):
        assert store_copy.sweep() == []
    assert store_copy.sweep() == [leftover]
    assert not leftover.exists()


def test_what_is_not_ours_is_neither_listed_nor_removed(store_copy: Store) -> None:
    before = store_copy.verify()
    others = [store_copy.folder / ".git", store_copy.folder / ".cache.d", store_copy.folder / "mine"]
    for path in others:
        path.mkdir()
        (path / "kept").touch()
    assert store_copy.verify() == before
    assert store_copy.sweep() == []
    with pytest.raises(EngineError, match="no engines"):
        store_copy.remove("mine")
    assert all((path / "kept").exists() for path in others)


def test_leftovers_that_cannot_be_removed_do_not_stop_a_reader(store_copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (store_copy.folder / f".{_folder(store_copy).name}.abc").mkdir()
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert store_copy.sweep() == []


def test_a_home_of_nobody_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTROUTE_HOME", "~nobody-of-that-name/store")
    with pytest.raises(ConfigError, match="COSTROUTE_HOME"):
        Store.open()


def test_a_disk_that_fills_up_leaves_nothing(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "sync_files", full)
    with pytest.raises(StoreFullError, match=r"no room to write.*COSTROUTE_HOME") as caught:
        build(Bundle.open(tiny_bundle), Store.open(tmp_path / "home"), Setup(threads=1))
    assert caught.value.exit_code == 5
    assert list((tmp_path / "home/engines").iterdir()) == []


def test_too_little_room_is_reported_before_building(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(durable.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StoreFullError, match="0 MiB free, 1 MiB needed"):
        build(Bundle.open(tiny_bundle), Store.open(tmp_path / "home"), Setup(threads=1))


@pytest.mark.skipif(os.name == "nt", reason="takes the right to write from a folder by its mode, which Windows does not have")
@pytest.mark.skipif(os.name != "nt" and os.geteuid() == 0, reason="takes the right to write from a folder, and root may write everywhere")
def test_a_store_that_cannot_be_written(tiny_bundle: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EngineError, match="COSTROUTE_HOME"):
        build(Bundle.open(tiny_bundle), Store.open(tmp_path / "home"), Setup(threads=1))


def test_a_store_that_is_a_file(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(EngineError, match=r"the store cannot be used.*COSTROUTE_HOME"):
        build(Bundle.open(tiny_bundle), Store.open(tmp_path / "home"), Setup(threads=1))


def test_an_engine_is_found_while_another_takes_its_place(store_copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key, found, readers = next(stored.key for stored in store_copy.engines()), list[object](), list[threading.Thread]()
    before = store_copy.find(key)
    assert before is not None
    rename = os.rename

    def pause_in_the_gap(source: Path, target: Path) -> None:
        if Path(target).name == key.digest:
            assert not Path(target).exists()
            reader = threading.Thread(target=lambda: found.append(store_copy.find(key)))
            reader.start()
            readers.append(reader)
            reader.join(0.05)  # it waits for the lock, which we hold
        rename(source, target)

    monkeypatch.setattr(store_module.os, "rename", pause_in_the_gap)
    entries = {"built_at": "now", "build_s": 9.0, "gate": {}, "source": "x", "quarantined": None}
    with store_copy.lock(key.digest):
        store_copy.write(key, lambda folder: entries if (folder / "model.onnx").write_bytes(b"x") else {})
    for reader in readers:
        reader.join(30)
    assert [getattr(stored, "build_s", None) for stored in found] == [9.0]


@pytest.mark.parametrize("reader", ["find", "sweep"])
def test_an_engine_whose_builder_died_while_replacing_it_comes_back(store_copy: Store, reader: str) -> None:
    stored = store_copy.engines()[0]
    away = store_copy._move_away(stored.path, "old")
    assert not stored.path.exists()
    if reader == "sweep":
        assert store_copy.sweep() == [away]
    again = store_copy.find(stored.key)
    assert again is not None
    assert again.sha256 == stored.sha256
    store_copy.sweep()
    assert not away.exists()


def test_an_engine_that_was_removed_does_not_come_back(store_copy: Store) -> None:
    stored = store_copy.engines()[0]
    store_copy._move_away(stored.path, "removed")
    assert store_copy.find(stored.key) is None
    assert len(store_copy.sweep()) == 1
    assert store_copy.find(stored.key) is None
