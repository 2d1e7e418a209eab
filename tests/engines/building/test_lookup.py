"""What the store knows about a bundle's engines, and errors that say which engine, setup and bundle they are about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import make_spec
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.building.lookup import engine_key, explain_engines, read_cost
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError, EngineError, Reason
from costroute_rt.family.calls import engine_names
from tests import gated_backend
from tests.engines.conftest import build, quarantine


def test_a_miss_names_the_field(tiny_bundle: Path, built_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntimeBackend, "options", lambda *_: "optimization=none")
    with pytest.raises(EngineError, match=r"options: wanted optimization=none.*stored optimization=all.*build the engines") as caught:
        open_engine(Bundle.open(tiny_bundle), Store.open(built_home), "tiny/base/guided_step", Setup(threads=1))
    assert (caught.value.reason, caught.value.engine) == (Reason.MISSING, "tiny/base/guided_step")


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
        assert caught.value.setup == {"backend": "gated", "provider": "cpu", "precision": "float32", "target": "", "threads": "1"}
        assert caught.value.bundle == str(bundle.root)

    sized = "tiny/vae/decode@64x96"
    check(lambda: open_engine(bundle, store_copy, sized, setup), Reason.MISSING, sized)
    check(lambda: read_cost(bundle, store_copy, "tiny/vae/decode", setup), Reason.MISSING)
    build(bundle, store_copy, setup, names=["tiny/vae/decode"], measure=False)
    check(lambda: read_cost(bundle, store_copy, "tiny/vae/decode", setup), Reason.NOT_MEASURED)
    with monkeypatch.context() as patch:
        patch.setattr(gated_backend.GatedBackend, "open", _refuse)
        check(lambda: open_engine(bundle, store_copy, "tiny/vae/decode", setup), Reason.CANNOT_OPEN)
    quarantine(store_copy, engine_key(bundle, "tiny/vae/decode", setup), "it is wrong")
    check(lambda: open_engine(bundle, store_copy, "tiny/vae/decode", setup), Reason.QUARANTINED)
    check(lambda: build(bundle, store_copy, setup, names=["tiny/vae/decode"]), Reason.QUARANTINED)


def test_an_empty_store_is_reported_as_nothing_built(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="none was built"):
        open_engine(Bundle.open(tiny_bundle), Store.open(tmp_path), "tiny/base/guided_step")
    assert not list(tmp_path.iterdir())


def test_each_engine_is_explained(tiny_bundle: Path, built_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(built_home)
    assert [found.problem for found in explain_engines(bundle, store, engine_names(bundle), Setup(threads=1))] == [None] * 5
    monkeypatch.setattr(OnnxRuntimeBackend, "options", lambda *_: "optimization=none")
    missing = explain_engines(bundle, store, engine_names(bundle), Setup(threads=1))
    assert {difference.field for found in missing for difference in found.differences} == {"options"}


def test_changed_weights_and_graphs_are_other_engines(tiny_bundle: Path, tmp_path: Path) -> None:
    from tests.tiny_bundle import write_tiny_bundle

    other = write_tiny_bundle(tmp_path / "other", seed=1)
    mine, theirs = (engine_key(each, "tiny/base/step", Setup(threads=1)) for each in (Bundle.open(tiny_bundle), other))
    assert [difference.field for difference in mine.differences(theirs)] == ["weights_sha256"]


@pytest.mark.parametrize("name", ["base", "base/step", "", "tiny/base/refine", "tiny/none/step", "other/base/step"])
def test_an_engine_of_another_name_is_an_error(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="family/component/graph, "):
        build(Bundle.open(tiny_bundle), Store.open(tmp_path), names=[name])


def test_wrong_values_of_a_setup_are_errors() -> None:
    with pytest.raises(ConfigError, match="threads"):
        make_spec(threads=0)
    with pytest.raises(ConfigError, match="float32, bfloat16, float16"):
        make_spec(precision="half")
    with pytest.raises(ConfigError, match="backend"):
        get_backend("abacus")
