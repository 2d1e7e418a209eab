"""A dry run says what a build would do, why, how long it takes and the disk it needs; the store decides as it says."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_each
from costroute_rt.engines.building.lookup import engine_key, explain_engines
from costroute_rt.engines.building.plan import PlannedBuild, plan_builds
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError
from costroute_rt.family.calls import engine_names
from tests.engines.conftest import build, flip_byte, quarantine, relist

ONE = Setup(threads=1)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


def plan(bundle: Bundle, store: Store, setup: Setup = ONE, *, force: bool = False) -> dict[str, PlannedBuild]:
    planned = plan_builds(bundle, store, engine_names(bundle), setup, force=force)
    return {each.engine: each for each in planned}


def test_of_an_empty_store_nothing_is_known(bundle: Bundle, tmp_path: Path) -> None:
    planned = plan(bundle, Store.open(tmp_path / "home"))
    assert {each.why for each in planned.values()} == {"none was built"}
    assert {each.build_s for each in planned.values()} == {None}
    assert all(each.builds and each.disk_bytes > 0 for each in planned.values())
    assert not (tmp_path / "home").exists()


def test_what_exists_is_not_built_unless_forced(bundle: Bundle, built_home: Path) -> None:
    store = Store.open(built_home)
    planned = plan(bundle, store)
    assert {(each.builds, each.why, each.build_s, each.disk_bytes) for each in planned.values()} == {(False, "it exists", 0.0, 0)}
    forced = plan(bundle, store, force=True)
    recorded = {stored.key.graph: stored for stored in store.engines()}
    assert {each.why for each in forced.values()} == {"forced"}
    assert {name: each.build_s for name, each in forced.items()} == {name: each.build_s for name, each in recorded.items()}
    assert {name: each.disk_bytes for name, each in forced.items()} == {name: each.size_bytes for name, each in recorded.items()}


def test_a_graph_never_built_takes_as_long_as_others_of_its_size(bundle: Bundle, tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    build(bundle, store, ONE, names=["tiny/vae/decode"], measure=False)
    (known,) = store.engines()
    planned = plan(bundle, store)["tiny/base/guided_step"]
    assert planned.build_s == pytest.approx(known.build_s / known.size_bytes * planned.disk_bytes)


def test_a_damaged_engine_is_to_be_built(bundle: Bundle, store_copy: Store) -> None:
    flip_byte(next(stored.path for stored in store_copy.engines() if stored.key.graph == "tiny/vae/decode") / "model.onnx")
    planned = plan(bundle, store_copy)
    assert [name for name, each in planned.items() if each.builds] == ["tiny/vae/decode"]
    assert planned["tiny/vae/decode"].why.startswith("damaged: ")


@pytest.mark.parametrize("name", [field.name for field in fields(EngineKey) if field.name != "graph"])
def test_every_field_of_the_key_alone_rebuilds_exactly_its_engine_and_is_named(
    bundle: Bundle, built_home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def changed(bundle: Bundle, engine: str, setup: Setup) -> EngineKey:
        key = engine_key(bundle, engine, setup)
        return replace(key, **{name: "changed"}) if "/base/" in engine else key

    for module in ("lookup", "plan"):
        monkeypatch.setattr(f"costroute_rt.engines.building.{module}.engine_key", changed)
    store = Store.open(built_home)
    planned = plan(bundle, store)
    assert [graph for graph, each in planned.items() if each.builds] == ["tiny/base/condition", "tiny/base/guided_step"]
    assert {(d.field, d.wanted) for each in planned.values() for d in each.differences} == {(name, "changed")}
    found = explain_engines(bundle, store, engine_names(bundle), ONE)
    assert {each.engine: [d.field for d in each.differences] for each in found if each.problem} == {
        "tiny/base/condition": [name],
        "tiny/base/guided_step": [name],
    }


def test_changed_weights_rebuild_exactly_what_reads_them(bundle_copy: Path, store_copy: Store) -> None:
    name = "unet_turbo/diffusion_pytorch_model.safetensors"
    flip_byte(bundle_copy / name, 0.9)
    relist(bundle_copy, name)
    changed = Bundle.open(bundle_copy)
    planned = plan(changed, store_copy)
    assert [graph for graph, each in planned.items() if each.builds] == ["tiny/turbo/step"]
    assert [d.field for d in planned["tiny/turbo/step"].differences] == ["weights_sha256"]
    reports = build(changed, store_copy, ONE, measure=False)
    assert [report.engine for report in reports if report.built] == ["tiny/turbo/step"]


def test_a_miss_is_explained_by_an_engine_of_the_same_backend_if_one_exists(bundle: Bundle, store_copy: Store) -> None:
    key = engine_key(bundle, "tiny/vae/decode", ONE)
    other = replace(key, backend="abacus")
    assert [d.field for d in store_copy.explain(other)] == ["backend"]
    older = replace(other, backend_version="0.1", driver="older", device="older")
    with store_copy.lock(older.digest):
        store_copy.write(older, lambda _: {"built_at": "then", "build_s": 1.0, "gate": {}, "source": "x", "quarantined": "slow"})
    assert [d.field for d in store_copy.explain(other)] == ["backend_version", "device", "driver"]


def test_hashes_are_shortened(bundle: Bundle, built_home: Path) -> None:
    key = engine_key(bundle, "tiny/vae/decode", ONE)
    (difference,) = Store.open(built_home).explain(replace(key, weights_sha256="a" * 64))
    assert str(difference) == f"weights_sha256: wanted {'a' * 12}, stored {key.weights_sha256[:12]}"


def test_a_quarantined_engine_is_not_built_until_its_key_changes(
    bundle: Bundle, store_copy: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = engine_key(bundle, "tiny/vae/decode", ONE)
    before = store_copy.find(key)
    assert before is not None
    stored = quarantine(store_copy, key, "it is slower than that of abacus")
    assert (stored.quarantined, stored.size_bytes) == ("it is slower than that of abacus", 0)
    assert (stored.built_at, stored.build_s, stored.gate) == (before.built_at, before.build_s, before.gate)
    assert sorted(path.name for path in stored.path.iterdir()) == ["manifest.json", "manifest.sha256"]

    assert plan(bundle, store_copy)["tiny/vae/decode"].why == "quarantined: it is slower than that of abacus"
    reports = build_each(bundle, store_copy, engine_names(bundle), ONE)
    assert [(each.engine, each.built, each.quarantined) for each in reports if each.quarantined] == [
        ("tiny/vae/decode", False, "it is slower than that of abacus")
    ]
    with pytest.raises(
        EngineError, match=r"vae/decode .*it is quarantined: it is slower.*force a build to try it again.*until something in its key"
    ):
        build(bundle, store_copy, ONE)
    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntimeBackend, "options", lambda *_: "optimization=none")
        assert plan(bundle, store_copy)["tiny/vae/decode"].builds
    build(bundle, store_copy, ONE, names=["tiny/vae/decode"], force=True, measure=False)
    assert plan(bundle, store_copy)["tiny/vae/decode"].why == "it exists"
