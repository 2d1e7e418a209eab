"""What is in the store, what uses it, and what goes when it is too large."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from costroute_rt.engines.backends.engine import Backend
from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.usage import collect_garbage, survey
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.error import BackendError, EngineError, Reason
from costroute_rt.family.calls import candidate_names
from tests.engines.conftest import build, flip_byte


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


def put(store: Store, key: EngineKey, size: int, used_at_s: float, quarantined: str | None = None) -> StoredEngine:
    """An engine of `size` bytes that was last used then."""

    def fill(folder: Path) -> dict[str, object]:
        (folder / "model.bin").write_bytes(bytes(size))
        return {"built_at": "2026-01-01T00:00:00+00:00", "build_s": 2.0, "gate": {}, "source": "elsewhere", "quarantined": quarantined}

    with store.lock(key.digest):
        stored = store.write(key, fill)
    os.utime(stored.path / "manifest.json", (used_at_s, used_at_s))
    return stored


@pytest.fixture
def keys(store_copy: Store) -> dict[str, EngineKey]:
    """Keys of the bundle's engines, by graph."""
    return {stored.key.graph: stored.key for stored in store_copy.engines()}


def test_each_engine_says_what_uses_it(bundle: Bundle, store_copy: Store, keys: dict[str, EngineKey]) -> None:
    build(bundle, store_copy, Setup(threads=1), names=["tiny/scorer/score"], measure=False)
    put(store_copy, replace(keys["tiny/turbo/step"], backend_version="0.1", driver="older"), 100, 5.0)
    put(store_copy, replace(keys["tiny/turbo/step"], graph="other/turbo/step"), 100, 6.0)
    put(store_copy, replace(keys["tiny/turbo/step"], backend="abacus"), 100, 6.0)
    put(store_copy, replace(keys["tiny/turbo/step"], precision="float16"), 0, 7.0, quarantined="it is wrong")
    found = {(each.stored.key.graph, each.stored.key.backend_version, each.stored.key.backend, each.stored.key.precision): each
             for each in survey(bundle, store_copy, candidate_names(bundle))}  # fmt: skip
    version = keys["tiny/turbo/step"].backend_version
    mine = found["tiny/turbo/step", version, "onnxruntime", "float32"]
    assert mine.used_by == ("tiny-turbo@1", "tiny-turbo@2")
    assert (mine.state, mine.differences) == ("ready", ())
    assert mine.cost is not None
    scorer = found["tiny/scorer/score", version, "onnxruntime", "float32"]
    assert (scorer.used_by, scorer.state, scorer.cost) == ((), "ready", None)
    assert found["tiny/turbo/step", "0.1", "onnxruntime", "float32"].state == "stale: another backend_version, driver"
    assert found["other/turbo/step", version, "onnxruntime", "float32"].state == "stale: another graph"
    assert found["tiny/turbo/step", version, "abacus", "float32"].state == "stale: another backend"
    wrong = found["tiny/turbo/step", version, "onnxruntime", "float16"]
    assert (wrong.state, wrong.used_by) == ("quarantined: it is wrong", ())


def test_the_oldest_that_nobody_needs_goes_first(bundle: Bundle, store_copy: Store, keys: dict[str, EngineKey]) -> None:
    base = keys["tiny/turbo/step"]
    older = put(store_copy, replace(base, driver="older"), 100_000, 2000.0)
    oldest = put(store_copy, replace(base, driver="oldest"), 100_000, 1000.0)
    newer = put(store_copy, replace(base, driver="newer"), 100_000, 3000.0)
    wrong = put(store_copy, replace(base, driver="wrong"), 0, 1.0, quarantined="it is wrong")
    damaged = put(store_copy, replace(base, driver="damaged"), 10, 9e9)
    flip_byte(damaged.path / "manifest.json")
    needed = sum(each.disk_bytes for each in survey(bundle, store_copy, candidate_names(bundle)) if each.used_by)
    limit = needed + 150_000
    planned = collect_garbage(bundle, store_copy, candidate_names(bundle), limit, dry_run=True)
    assert [usage.stored.digest for usage, _ in planned.removed] == [damaged.digest, oldest.digest, older.digest]
    assert len(store_copy.verify()) == 10
    done = collect_garbage(bundle, store_copy, candidate_names(bundle), limit)
    assert [why for _, why in done.removed] == ["damaged", *["stale: another driver"] * 2]
    assert done.after_bytes <= limit < done.before_bytes
    left = {stored.digest for stored in store_copy.engines()}
    assert left == {key.digest for key in keys.values()} | {newer.digest, wrong.digest}
    assert collect_garbage(bundle, store_copy, candidate_names(bundle), limit).removed == []


def test_what_the_bundle_uses_goes_only_where_it_alone_is_too_much(bundle: Bundle, store_copy: Store) -> None:
    opened = next(stored for stored in store_copy.engines() if stored.key.graph == "tiny/base/guided_step")
    for index, stored in enumerate(store_copy.engines()):
        os.utime(stored.path / "manifest.json", (1000.0 + index, 1000.0 + index))
    store_copy.note_use(opened)
    used = sum(each.disk_bytes for each in survey(bundle, store_copy, candidate_names(bundle)))
    assert collect_garbage(bundle, store_copy, candidate_names(bundle), used).removed == []
    done = collect_garbage(bundle, store_copy, candidate_names(bundle), used - 1)
    assert [usage.engine for usage, _ in done.removed] == ["tiny/base/condition"]
    assert done.removed[0][1] == "the engines in use alone exceed the limit"
    assert collect_garbage(bundle, store_copy, candidate_names(bundle), 0).after_bytes == 0


def test_an_engine_somebody_builds_is_left(bundle: Bundle, store_copy: Store) -> None:
    busy = store_copy.engines()[0]
    with store_copy.lock(busy.digest):
        done = collect_garbage(bundle, store_copy, candidate_names(bundle), 0)
    assert [stored.digest for stored in store_copy.engines()] == [busy.digest]
    assert done.after_bytes > 0


def test_opening_an_engine_is_remembered(bundle: Bundle, store_copy: Store) -> None:
    from costroute_rt.engines.building.build import open_engine

    (stored,) = (each for each in store_copy.engines() if each.key.graph == "tiny/vae/decode")
    os.utime(stored.path / "manifest.json", (1000.0, 1000.0))
    assert next(e for e in store_copy.engines() if e.digest == stored.digest).used_at_s == 1000.0
    open_engine(bundle, store_copy, "tiny/vae/decode", Setup(threads=1)).close()
    assert next(e for e in store_copy.engines() if e.digest == stored.digest).used_at_s > 1_700_000_000


def test_other_rules_and_shapes_are_stale(bundle: Bundle, store_copy: Store, keys: dict[str, EngineKey]) -> None:
    base = keys["tiny/turbo/step"]
    old = put(store_copy, replace(base, options=f"{base.options} rules=0"), 10, 5.0)
    odd = put(store_copy, replace(base, shapes="batch=3"), 10, 5.0)
    found = {each.stored.digest: each for each in survey(bundle, store_copy, candidate_names(bundle))}
    assert (found[old.digest].state, found[old.digest].used_by) == ("stale: another options", ())
    assert (found[odd.digest].state, found[odd.digest].used_by) == ("stale: another shapes", ())


def test_engines_that_know_a_size_are_used_too(bundle: Bundle, store_copy: Store) -> None:
    build(bundle, store_copy, Setup(threads=1), size=(64, 96), measure=False)
    assert {each.state for each in survey(bundle, store_copy, candidate_names(bundle))} == {"ready"}
    found = survey(bundle, store_copy, candidate_names(bundle))
    assert sum(each.engine.endswith("@64x96") and bool(each.used_by) for each in found) == 3


class Away(OnnxRuntimeBackend):
    """A backend whose card is missing, which it reports by an error, or by a device called none."""

    name = "away"
    says_so = True

    def device(self, spec: object) -> tuple[str, str]:
        if self.says_so:
            raise BackendError("a card", "no driver", "install it")
        return "none", "none"


@pytest.mark.parametrize("says_so", [True, False])
def test_what_may_be_stale_goes_after_what_nobody_uses(
    bundle: Bundle, store_copy: Store, keys: dict[str, EngineKey], monkeypatch: pytest.MonkeyPatch, says_so: bool
) -> None:
    def find_backend(name: str) -> Backend:
        return Away() if name == "away" else get_backend(name)

    monkeypatch.setattr("costroute_rt.engines.backends.setup.get_backend", find_backend)
    monkeypatch.setattr(Away, "says_so", says_so)
    base = keys["tiny/turbo/step"]
    away = put(store_copy, replace(base, backend="away", device="a card", driver="560"), 1000, 1.0)
    stale = put(store_copy, replace(base, driver="older"), 1000, 2.0)
    found = {each.stored.digest: each for each in survey(bundle, store_copy, candidate_names(bundle))}
    assert found[away.digest].state == f"unknown: {'no driver' if says_so else 'a card is missing'}"
    assert found[away.digest].used_by == ()
    total = sum(each.disk_bytes for each in found.values())
    done = collect_garbage(bundle, store_copy, candidate_names(bundle), total - 1)
    assert [usage.stored.digest for usage, _ in done.removed] == [stale.digest]
    again = collect_garbage(bundle, store_copy, candidate_names(bundle), done.after_bytes - 1)
    assert [usage.stored.digest for usage, _ in again.removed] == [away.digest]


def test_engines_that_another_collection_removed_are_gone(bundle: Bundle, store_copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store.remove

    def remove_twice(store: Store, digest: str, timeout_s: float = -1) -> StoredEngine:
        real(store, digest)
        return real(store, digest, timeout_s)

    monkeypatch.setattr(Store, "remove", remove_twice)
    done = collect_garbage(bundle, store_copy, candidate_names(bundle), 0)
    assert (done.removed, done.after_bytes, store_copy.engines()) == ([], 0, [])


def test_an_engine_that_cannot_be_removed_is_an_error(bundle: Bundle, store_copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> StoredEngine:
        raise EngineError("no permission", reason=Reason.STORE, path=store_copy.root)

    monkeypatch.setattr(Store, "remove", fail)
    with pytest.raises(EngineError, match="no permission"):
        collect_garbage(bundle, store_copy, candidate_names(bundle), 0)
