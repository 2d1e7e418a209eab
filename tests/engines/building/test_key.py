"""A key covers everything an engine depends on, and a miss names what differed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from costroute_rt.engines.backends.key import ANY_DRIVER, EngineKey
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.spec import make_spec
from costroute_rt.engines.building.build import build_engines, explain_engines, open_engine
from costroute_rt.engines.building.setup import Setup
from costroute_rt.engines.building.specification import engine_key
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError, EngineError, Reason
from costroute_rt.family.assembly import find_profiles
from tests import gated_backend
from tests.engines.conftest import quarantine

KEY = EngineKey(**{field.name: f"some {field.name}" for field in fields(EngineKey)})
EXPECTED = {
    "graph", "weights_sha256", "graph_sha256", "backend", "backend_version", "provider", "precision", "shapes", "options", "device",
    "driver", "os",
}  # fmt: skip


def test_the_key_covers_what_the_design_lists() -> None:
    assert {field.name for field in fields(EngineKey)} == EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_any_field_changes_the_digest_and_is_named(name: str) -> None:
    other = replace(KEY, **{name: "other"})
    assert other.digest != KEY.digest
    assert [(d.field, d.wanted, d.found) for d in KEY.differences(other)] == [(name, f"some {name}", "other")]


def test_the_digest_is_stable_and_fit_for_a_file_name() -> None:
    assert KEY.digest == replace(KEY).digest
    assert re.fullmatch("[0-9a-f]{32}", KEY.digest)


def test_a_miss_names_the_field(tiny_bundle: Path, built_home: Path) -> None:
    with pytest.raises(EngineError, match=r"options: wanted threads=3.*stored threads=1.*build the engines") as caught:
        open_engine(Bundle.open(tiny_bundle), Store.open(built_home), "base/guided_step", Setup(threads=3))
    assert (caught.value.reason, caught.value.engine) == (Reason.MISSING, "tiny/base/guided_step")


def test_a_key_says_with_which_setup_such_engines_are_asked_for() -> None:
    names = ("backend", "provider", "precision")
    assert KEY.setup == {**{name: f"some {name}" for name in names}, "target": ""}
    portable = replace(KEY, backend="tensorrt-rtx", provider="cuda", precision="float16", driver=ANY_DRIVER, device="ampere+")
    assert portable.setup == {"backend": "tensorrt-rtx", "provider": "cuda", "precision": "float16", "target": "ampere+"}


def _refuse(backend: object, folder: Path, *_: object) -> None:
    raise EngineError("the engine cannot be opened", reason=Reason.CANNOT_OPEN, path=folder)


def test_each_error_knows_engine_setup_and_bundle(tiny_bundle: Path, store_copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gated_backend.install(monkeypatch.setattr)
    monkeypatch.setenv(gated_backend.GATE, str(store_copy.root))
    (store_copy.root / "all").touch()
    bundle, setup = Bundle.open(tiny_bundle), Setup(backend="gated", threads=1)

    def check(call: Callable[[], object], reason: Reason, engine: str = "tiny/vae/decode") -> None:
        with pytest.raises(EngineError) as caught:
            call()
        assert (caught.value.reason, caught.value.engine) == (reason, engine)
        assert caught.value.setup == {"backend": "gated", "provider": "cpu", "precision": "float32", "target": ""}
        assert caught.value.bundle == str(bundle.root)

    sized = "vae/decode@64x96"
    check(lambda: open_engine(bundle, store_copy, sized, setup), Reason.MISSING, f"tiny/{sized}")
    check(lambda: setup.cost(bundle, store_copy, "vae/decode"), Reason.MISSING)
    build_engines(bundle, store_copy, setup, graphs=["vae/decode"], measure=False)
    check(lambda: setup.cost(bundle, store_copy, "vae/decode"), Reason.NOT_MEASURED)
    with monkeypatch.context() as patch:
        patch.setattr(gated_backend.GatedBackend, "open", _refuse)
        check(lambda: open_engine(bundle, store_copy, "vae/decode", setup), Reason.CANNOT_OPEN)
    quarantine(store_copy, setup.key(bundle, "vae/decode"), "it is wrong")
    check(lambda: open_engine(bundle, store_copy, "vae/decode", setup), Reason.QUARANTINED)
    check(lambda: build_engines(bundle, store_copy, setup, graphs=["vae/decode"]), Reason.QUARANTINED)
    profiles = replace(find_profiles(bundle, store_copy, setup, ["vae/decode"]), sizes=frozenset([(64, 96)]), has_usual=False)
    check(lambda: profiles.resolve(bundle, "vae/decode", (96, 64)), Reason.SIZE_MISSING, "tiny/vae/decode@96x64")


def test_nothing_built_is_said_too(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="none was built"):
        open_engine(Bundle.open(tiny_bundle), Store.open(tmp_path), "base/guided_step")
    assert not list(tmp_path.iterdir())


def test_explain_tells_each_graph(tiny_bundle: Path, built_home: Path) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(built_home)
    assert [found.found for found in explain_engines(bundle, store, Setup(threads=1))] == [True] * 5
    missing = explain_engines(bundle, store, Setup(threads=2))
    assert {difference.field for found in missing for difference in found.differences} == {"options"}


def test_changed_weights_and_graphs_are_other_engines(tiny_bundle: Path, tmp_path: Path) -> None:
    from tests.tiny_bundle import write_tiny_bundle

    other = write_tiny_bundle(tmp_path / "other", seed=1)
    tool, spec = get_backend("onnxruntime"), make_spec(threads=1)
    mine, theirs = (engine_key(each, "base/step", tool, spec) for each in (Bundle.open(tiny_bundle), other))
    assert [difference.field for difference in mine.differences(theirs)] == ["weights_sha256"]


@pytest.mark.parametrize("name", ["base", "/step", "base/", "", "base/refine", "none/step"])
def test_a_graph_is_named_component_and_graph(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"component/graph, one of .*base/guided_step"):
        build_engines(Bundle.open(tiny_bundle), Store.open(tmp_path), graphs=[name])
    with pytest.raises(ConfigError, match="threads"):
        make_spec(threads=0)
    with pytest.raises(ConfigError, match="float32, bfloat16, float16"):
        make_spec(precision="half")
    with pytest.raises(ConfigError, match="backend"):
        get_backend("abacus")
