"""Stores that ship beside an application are read, and never written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import Runtime
from costroute_rt.engines.backends.key import ANY_DRIVER, EngineKey
from costroute_rt.engines.backends.setup import USUAL, Setup
from costroute_rt.engines.building import build as build_module
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.building.profile import profile_engines
from costroute_rt.engines.building.usage import collect_garbage, survey
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError, EngineError
from costroute_rt.family.calls import candidate_names, engine_names
from tests.engines.conftest import build, flip_byte


def contents(root: Path) -> dict[str, Any]:
    """Everything that a write would change."""
    found = {path: path.lstat() for path in (root, *root.rglob("*"))}
    return {str(path): (each.st_mode, each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_nlink) for path, each in found.items()}


@pytest.fixture
def extra(built_home: Path, tmp_path: Path, tiny_bundle: Path) -> Iterator[Path]:
    """A complete store beside an application, which must not change."""
    root = Path(shutil.copytree(built_home, tmp_path / "application/engines"))
    build(Bundle.open(tiny_bundle), Store(root))  # for this machine's usual number of threads, too
    before = contents(root)
    yield root
    assert contents(root) == before


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def test_a_runtime_uses_engines_of_an_extra_store_in_place(extra: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with Runtime.open(tiny_bundle, home=tmp_path / "home", extra_stores=[extra], build=True) as runtime:
            assert runtime.generate("a lake", seed=1).pixels.any()
            assert runtime.store == tmp_path / "home"
    assert not (tmp_path / "home/engines").exists()


def test_the_variable_names_several(extra: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("COSTROUTE_EXTRA_STORES", os.pathsep.join([str(tmp_path / "empty"), str(extra)]))
    monkeypatch.setenv("COSTROUTE_HOME", str(tmp_path / "home"))
    Runtime.open(tiny_bundle).close()
    assert Store.open(extra_stores=[extra]).extras == (extra, tmp_path / "empty")


def test_what_is_missing_in_the_extra_store_is_built_into_the_store(bundle: Bundle, built_home: Path, tmp_path: Path) -> None:
    extra = Path(shutil.copytree(built_home, tmp_path / "extra"))
    shutil.rmtree(Store(extra).engines()[0].path)
    before = contents(extra)
    store = Store.open(tmp_path / "home", [extra])
    assert sum(report.built for report in build(bundle, store, Setup(threads=1))) == 1
    assert len(list(store.folder.iterdir())) == 1
    assert contents(extra) == before


def test_an_engine_that_is_damaged_in_the_extra_store_is_built_into_the_store(bundle: Bundle, built_home: Path, tmp_path: Path) -> None:
    extra = Path(shutil.copytree(built_home, tmp_path / "extra"))
    flip_byte(Store(extra).engines()[0].path / "model.onnx")
    flip_byte(Store(extra).engines()[1].path / "manifest.json")
    store = Store.open(tmp_path / "home", [extra])
    assert sum(report.built for report in build(bundle, store, Setup(threads=1))) == 2
    assert len(list(store.folder.iterdir())) == 2


def test_an_engine_damaged_in_the_store_is_taken_from_the_extra_one(bundle: Bundle, extra: Path, tmp_path: Path) -> None:
    store = Store.open(shutil.copytree(extra, tmp_path / "home"), [extra])
    flip_byte(next(each for each in store.engines() if store.owns(each)).path / "manifest.json")
    assert not any(report.built for report in build(bundle, store))


def test_the_store_comes_before_the_extra_ones(bundle: Bundle, extra: Path, tmp_path: Path) -> None:
    store = Store.open(shutil.copytree(extra, tmp_path / "home"), [extra])
    assert all(store.owns(found) for found in map(store.find, [stored.key for stored in Store(extra).engines()]) if found)


def test_measuring_again_keeps_the_costs_in_the_store(bundle: Bundle, extra: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home", [extra])
    costs = profile_engines(bundle, store, engine_names(bundle), USUAL)
    written = sorted(path.stem for path in (tmp_path / "home/costs").glob("*.json"))
    assert written == sorted(cost.digest for cost in costs)
    found = {usage.stored.digest: usage.cost for usage in survey(bundle, store, candidate_names(bundle))}
    assert all(found[cost.digest] is not None for cost in costs)


def test_nothing_is_removed_from_an_extra_store(bundle: Bundle, extra: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home", [extra])
    assert len(survey(bundle, store, candidate_names(bundle))) == len(Store(extra).engines())
    assert collect_garbage(bundle, store, candidate_names(bundle), 0).removed == []
    with pytest.raises(EngineError, match="extra store"):
        store.remove(Store(extra).engines()[0].digest)
    assert store.sweep() == []
    assert store.size_bytes() == 0
    assert len(store.verify()) == len(Store(extra).engines())


def test_an_engine_for_any_driver_is_checked_and_put_into_the_store(
    bundle: Bundle, extra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key = build_module.make_key

    def portable(*arguments: Any) -> EngineKey:
        return replace(make_key(*arguments), driver=ANY_DRIVER)

    monkeypatch.setattr(build_module, "make_key", portable)
    shipped = Store.open(tmp_path / "shipped")
    name = "tiny/turbo/step"
    build(bundle, shipped, names=[name], measure=False)
    before = {path: path.stat().st_mtime_ns for path in shipped.root.rglob("*")}
    store = Store.open(tmp_path / "home", [shipped.root])
    open_engine(bundle, store, name).close()
    assert [each.key.driver for each in store.engines() if store.owns(each)] == [ANY_DRIVER]
    assert {path: path.stat().st_mtime_ns for path in shipped.root.rglob("*")} == before


@pytest.mark.parametrize("paths", [["missing"], [""], "a/single/path"])
def test_extra_stores_must_exist(tmp_path: Path, paths: Any) -> None:
    with pytest.raises(ConfigError, match="extra_stores"):
        Store.open(tmp_path, paths)


def test_the_listing_names_the_store_of_each_engine(
    extra: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from costroute_rt.cli.main import cli

    monkeypatch.setenv("COSTROUTE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COSTROUTE_EXTRA_STORES", str(extra))
    listed = json.loads(CliRunner().invoke(cli, ["engines", "list", "--bundle", str(tiny_bundle), "--json"]).stdout)
    assert {each["store"] for each in listed["engines"]} == {str(extra)}
    assert listed["extra_stores"] == [str(extra)]
    assert str(extra) in CliRunner().invoke(cli, ["engines", "list", "--bundle", str(tiny_bundle)]).stdout
