"""By the rule of Windows: a folder cannot be moved while a process has a file of it open. Such engines stay, and go later."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.usage import collect_garbage
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store import store as store_module
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError, Reason
from costroute_rt.family.calls import candidate_names
from tests.engines.conftest import build

SHARING_VIOLATION, ACCESS_DENIED = 32, 5


@pytest.fixture(params=[SHARING_VIOLATION, ACCESS_DENIED])
def used(request: pytest.FixtureRequest, store_copy: Store, monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The engines' folders that somebody uses, at first one."""
    folders, rename = {store_copy.engines()[0].path}, os.rename

    def refuse(source: Any, target: Any) -> None:
        if Path(source) in folders:
            error = PermissionError(13, "The process cannot access the file because it is being used by another process", str(source))
            error.winerror = request.param  # type: ignore[attr-defined]
            raise error
        rename(source, target)

    monkeypatch.setattr(store_module.os, "rename", refuse)
    return folders


def test_an_engine_in_use_is_not_removed(store_copy: Store, used: set[Path]) -> None:
    (path,) = used
    with pytest.raises(EngineError, match="another process is using the engine; end the programs that use it") as caught:
        store_copy.remove(path.name)
    assert caught.value.reason is Reason.IN_USE
    assert [found.is_good for found in store_copy.verify()] == [True] * 5
    assert not list(store_copy.folder.glob(".*"))


def test_an_engine_in_use_is_not_replaced(tiny_bundle: Path, store_copy: Store, used: set[Path]) -> None:
    stored = store_copy.engines()[0]
    with pytest.raises(EngineError, match="another process is using the engine"):
        build(Bundle.open(tiny_bundle), store_copy, Setup(threads=1), names=[stored.key.graph], force=True, measure=False)
    assert store_copy.find(stored.key) == stored
    assert not list(store_copy.folder.glob(".*"))
    used.clear()
    (report,) = build(Bundle.open(tiny_bundle), store_copy, Setup(threads=1), names=[stored.key.graph], force=True, measure=False)
    assert report.built


def test_removing_unused_engines_passes_over_those_in_use(tiny_bundle: Path, store_copy: Store, used: set[Path]) -> None:
    bundle = Bundle.open(tiny_bundle)
    done = collect_garbage(bundle, store_copy, candidate_names(bundle), 0)
    assert [error.reason for _, error in done.kept] == [Reason.IN_USE]
    assert {stored.path for stored in store_copy.engines()} == used
    assert done.after_bytes > 0


def test_a_file_that_cannot_be_removed_goes_with_a_later_sweep(store_copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path, unlink = store_copy.engines()[0].path, os.unlink

    def refuse(name: Any, **how: Any) -> None:
        if Path(name).name == "model.onnx":
            raise PermissionError(13, "in use", name)
        unlink(name, **how)

    with monkeypatch.context() as patch:
        patch.setattr(shutil.os, "unlink", refuse)
        store_copy.remove(path.name)
        assert len(store_copy.engines()) == 4
        assert store_copy.sweep() == []
    assert len(list(store_copy.folder.glob(".*"))) == 1
    assert len(store_copy.sweep()) == 1
    assert not list(store_copy.folder.glob(".*"))
