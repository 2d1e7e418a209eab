"""Routers in bundles: with a new router, opened, and refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.building.usage import survey
from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle
from costroute_rt.engines.bundle.size import free_axes
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BundleError, OutputError
from costroute_rt.family.calls import candidate_names, engine_names
from costroute_rt.request import Request
from costroute_rt.routing.router import Router
from costroute_rt.routing.router_bundle import open_router, states_source, with_router
from costroute_rt.routing.router_file import ROUTER_ARRAYS, ROUTER_JSON
from costroute_rt.runtime import Runtime
from tests.changed_bundle import change_bundle
from tests.runtime.routing.routers import cut, states_router, write_network_router
from tests.small_network import expect, open_encoder, write_estimator
from tests.small_router import make_router
from tests.tiny_bundle import WIDTH

SECOND_STATES = "text_encoder_2.last_hidden_state"


def test_a_bundle_is_made_with_a_router_beside_the_old_one(router: Router, bundle: Bundle, tmp_path: Path) -> None:
    router.save(tmp_path / "fitted")
    before = (bundle.root / "manifest.json").read_bytes()
    made = with_router(bundle, tmp_path / "fitted", tmp_path / "new" / "bundle")
    made.verify()
    assert made.router == {"file": "router/router.json", "arrays": "router/router.safetensors"}
    assert (bundle.root / "manifest.json").read_bytes() == before
    assert (made.root / "unet/step.onnx").samefile(bundle.root / "unet/step.onnx")
    np.testing.assert_allclose(open_router(made).judge("a red bird", None).mean, router.judge("a red bird", None).mean, atol=2e-3)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["bundle"]


def test_an_existing_bundle_is_replaced_only_with_force(router: Router, bundle: Bundle, tmp_path: Path) -> None:
    router.save(tmp_path / "fitted")
    target = tmp_path / "bundle"
    shutil.copytree(bundle.root, target)
    with pytest.raises(OutputError, match="exists already"):
        with_router(bundle, tmp_path / "fitted", target)
    first = with_router(Bundle.open(target), tmp_path / "fitted", target, force=True)  # the bundle itself
    again = with_router(first, tmp_path / "fitted", target, force=True)
    again.verify()
    assert again.manifest_sha256 == first.manifest_sha256
    (tmp_path / "letters").mkdir()
    with pytest.raises(OutputError, match="it is not a bundle, so it is not replaced"):
        with_router(bundle, tmp_path / "fitted", tmp_path / "letters", force=True)


def test_without_hard_links_files_are_copied(router: Router, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("costroute_rt.routing.router_bundle.os.link", refuse)
    router.save(tmp_path / "fitted")
    made = with_router(bundle, tmp_path / "fitted", tmp_path / "bundle")
    assert not (made.root / "unet/step.onnx").samefile(bundle.root / "unet/step.onnx")
    made.verify()


def test_a_bundle_that_cannot_be_sealed_leaves_nothing_behind(
    router: Router, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    router.save(tmp_path / "fitted")
    monkeypatch.setattr("costroute_rt.routing.router_bundle.seal_bundle", refuse)
    with pytest.raises(OutputError, match="No space left"):
        with_router(bundle, tmp_path / "fitted", tmp_path / "out" / "bundle")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bundle_that_cannot_be_replaced_stays(router: Router, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_path = os.replace

    def refuse_new(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(13, "Permission denied")
        replace_path(source, target)

    router.save(tmp_path / "fitted")
    shutil.copytree(bundle.root, tmp_path / "bundle")
    monkeypatch.setattr("costroute_rt.routing.router_bundle.os.replace", refuse_new)
    with pytest.raises(OutputError, match="Permission denied"):
        with_router(bundle, tmp_path / "fitted", tmp_path / "bundle", force=True)
    Bundle.open(tmp_path / "bundle").verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "fitted"]


def test_a_router_of_another_pool_or_text_encoder_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    make_router(tuple({**row, "guidance_scale": 7.0} for row in bundle.pool)).save(tmp_path / "other")
    with pytest.raises(BundleError, match="guidance_scale 7"):
        with_router(bundle, tmp_path / "other", tmp_path / "bundle")
    states_router(bundle, text_encoder="0" * 64)[0].save(tmp_path / "states")
    with pytest.raises(BundleError, match="another text encoder"):
        with_router(bundle, tmp_path / "states", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def add_encoder(manifest: dict[str, Any], _: Path) -> None:
    """Add a text encoder that no denoiser reads; it has the graph of the first one."""
    manifest["components"]["text_encoder_2"] = manifest["components"]["text_encoder"]


def test_a_new_router_reads_the_same_states_as_the_former_one(bundle: Bundle, tmp_path: Path) -> None:
    two = change_bundle(bundle.root, tmp_path / "two", add_encoder)
    states_router(two)[0].save(tmp_path / "fitted")
    first = with_router(two, tmp_path / "fitted", tmp_path / "first")
    assert first.router is not None
    assert first.router["states"] == "text_encoder.last_hidden_state"
    stated = change_bundle(first.root, tmp_path / "stated", lambda manifest, _: manifest["router"].update(states=SECOND_STATES))
    again = with_router(stated, tmp_path / "fitted", tmp_path / "again")
    assert states_source(again) == ("text_encoder_2", SECOND_STATES)


def test_a_router_may_read_a_text_encoder_that_no_candidate_uses(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    two = change_bundle(bundle.root, tmp_path / "two", add_encoder)
    states_router(two, WIDTH)[0].save(tmp_path / "fitted")
    first = with_router(two, tmp_path / "fitted", tmp_path / "first")
    made = change_bundle(first.root, tmp_path / "made", lambda manifest, _: manifest["router"].update(states=SECOND_STATES))
    engine = "tiny/text_encoder_2/encode"
    assert engine not in engine_names(first)
    assert engine in engine_names(made)
    assert all(engine in names for names in candidate_names(made).values())
    with Runtime.open(made.root, home=tmp_path / "home", build=True) as runtime:
        result = runtime.generate("a red house", seed=1)
        assert result.timings.swap_ms == 0  # it was loaded with the others
        assert result.route.chosen == runtime.route("a red house").chosen
        calls = [call.engine for call in runtime._resources.calls(result.route.chosen, Request(prompt="a red house"))]
        assert calls.count(engine) == calls.count("tiny/text_encoder/encode") == 1
    with Runtime.open(first.root, home=tmp_path / "home", build=True) as runtime:
        for candidate in runtime.candidates:
            calls = [call.engine for call in runtime._resources.calls(candidate, Request(prompt="a red house"))]
            assert calls.count("tiny/text_encoder/encode") == 1  # the denoiser reuses the router's states


@pytest.mark.parametrize("kind", ["knn", "average"])
def test_a_router_of_words_needs_no_states_of_text_encoders(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    """The text encoder has a pooled output only."""

    def pool(manifest: dict[str, Any], _: Path) -> None:
        manifest["graphs"]["text_encoder/model.onnx"]["outputs"] = {"pooled": {"dtype": "float32", "shape": ["batch", WIDTH]}}
        for path in (path for path in manifest["graphs"] if path.startswith("unet")):
            inputs = manifest["graphs"][path]["inputs"]
            if (states := inputs.pop("text_encoder.last_hidden_state", None)) is not None:
                inputs["text_encoder.pooled"] = {"dtype": "float32", "shape": [states["shape"][0], WIDTH]}

    pooled = change_bundle(bundle.root, tmp_path / "pooled", pool)
    router = make_router(bundle.pool, kind)
    router.save(tmp_path / "fitted")
    made = with_router(pooled, tmp_path / "fitted", tmp_path / "made")
    assert open_router(made).judge("a red bird", None).mean.shape == (len(bundle.pool),)
    with pytest.raises(BundleError, match="no text encoder has one state per token"):
        states_source(made)


def test_a_bundle_without_a_router_has_none_to_open(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no router"):
        open_router(bundle)


def test_a_manifest_may_only_name_router_files_it_lists(router: Router, bundle: Bundle, tmp_path: Path) -> None:
    router.save(tmp_path / "fitted")
    made = with_router(bundle, tmp_path / "fitted", tmp_path / "bundle")
    manifest = json.loads((made.root / "manifest.json").read_text())
    with pytest.raises(BundleError, match="not among its files"):
        seal_bundle(made.root, {**manifest, "router": {"file": "router/router.json", "arrays": "router/other.safetensors"}})
    with pytest.raises(BundleError, match=r"no router\.arrays"):
        seal_bundle(made.root, {**manifest, "router": {"file": "router/router.json"}})
    with pytest.raises(BundleError, match="one folder"):
        open_router(seal_bundle(made.root, {**manifest, "router": {"file": "router/router.json", "arrays": "vae/decode.onnx"}}))


def test_an_opened_runtime_routes_by_the_bundles_router(router: Router, bundle: Bundle, tmp_path: Path, home: Path) -> None:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    router.save(tmp_path / "fitted")
    made = with_router(bundle, tmp_path / "fitted", tmp_path / "bundle")
    with Runtime.open(made.root, build=True) as runtime:
        short, long = runtime.route("a red bird"), runtime.route("a blue tree at night, with snow")
        assert (short.chosen.name, long.chosen.name) == ("tiny-turbo@1", "tiny-base@8")
        data = short.to_json()["router"]
        assert data["nearest"][0]["prompt"] == "a red bird"
        assert data["basis"].startswith("mean estimator")
        assert runtime.generate("a red bird", seed=1).route.chosen.name == "tiny-turbo@1"


@pytest.mark.parametrize("estimator", ["transformer", "mean"])
def test_an_opened_runtime_routes_by_the_routers_networks(bundle: Bundle, tmp_path: Path, home: Path, estimator: str) -> None:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    from costroute_rt.export.router.states import read_states

    _, matrix = write_network_router(bundle, tmp_path / "fitted", estimator)
    made = with_router(bundle, tmp_path / "fitted", tmp_path / "bundle")
    assert made.router is not None
    assert made.router["tokenizer"] == "router/tokenizer.json"
    expected = expect(matrix, read_states(bundle, ["a red house"], home=home))[0]
    expected = (expected + 0.5) / 2 if estimator == "mean" else expected
    with Runtime.open(made.root, build=True) as runtime:
        route = runtime.route("a red house")
        np.testing.assert_allclose([option.quality for option in route.options], expected, rtol=1e-4)
        assert all(option.resident for option in route.options)
        assert runtime.generate("a red house", seed=1).route.chosen == runtime.candidates[int(expected.argmax())]
        assert [round_.chosen for round_ in runtime.plan(["a red house"] * 2, mean_ms=1e6)] == [route.chosen] * 2
    users = {each.engine: each.used_by for each in survey(made, Store.open(), candidate_names(made))}
    assert {users["tiny/router_encoder/encode"], users["tiny/router_estimator/estimate"]} == {tuple(row["name"] for row in made.pool)}
    with Runtime.open(made.root, preload=False) as runtime:
        assert runtime.generate("a red house", seed=1).timings.swap_ms > 0


def test_free_axes_include_the_token_limit_of_the_routers_encoder(bundle: Bundle, tmp_path: Path) -> None:
    write_network_router(bundle, tmp_path / "fitted")
    made = with_router(bundle, tmp_path / "fitted", tmp_path / "bundle")
    assert made.router is not None
    most = made.router["max_length"]
    assert most == open_encoder(tmp_path / "fitted").max_length
    assert {axis: lengths for axis, *lengths in free_axes(made)}["prompt_tokens"] == [1, min(16, most), most]
    assert "prompt_tokens" not in {axis for axis, *_ in free_axes(bundle)}
    manifest = json.loads((made.root / "manifest.json").read_bytes())
    del manifest["router"]["max_length"]
    with pytest.raises(BundleError, match="max_length"):
        seal_bundle(made.root, manifest)


def test_a_new_router_replaces_the_networks_of_the_old_one(bundle: Bundle, router: Router, tmp_path: Path) -> None:
    write_network_router(bundle, tmp_path / "networks")
    router.save(tmp_path / "plain")
    first = with_router(bundle, tmp_path / "networks", tmp_path / "first")
    assert first.components["router_encoder"].graphs == {"encode": "router/router_encoder.onnx"}
    second = with_router(first, tmp_path / "plain", tmp_path / "second")
    assert (second.components.keys(), second.graphs.keys()) == (bundle.components.keys(), bundle.graphs.keys())
    assert sorted(path.name for path in (second.root / "router").iterdir()) == [ROUTER_JSON, ROUTER_ARRAYS]
    third = with_router(second, tmp_path / "networks", tmp_path / "third")
    assert (third.components, third.graphs) == (first.components, first.graphs)


@pytest.mark.parametrize("name", ["router_estimator.onnx", "router_encoder.safetensors", "tokenizer.json"])
def test_a_router_with_a_missing_file_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    write_network_router(bundle, tmp_path / "fitted")
    (tmp_path / "fitted" / name).unlink()
    with pytest.raises(BundleError, match=name):
        with_router(bundle, tmp_path / "fitted", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["fitted"]


NETWORK_DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda folder: cut(folder / "router_estimator.onnx"),
    "no ONNX": lambda folder: (folder / "router_encoder.onnx").write_text("a poem"),
    "cut weights": lambda folder: cut(folder / "router_estimator.safetensors"),
    "of another use": lambda folder: shutil.copy(folder / "router_encoder.onnx", folder / "router_estimator.onnx"),
    "wider": lambda folder: write_estimator(folder, WIDTH + 1, 4),
    "of more candidates": lambda folder: write_estimator(folder, WIDTH, 5),
}


@pytest.mark.parametrize("damage", NETWORK_DAMAGES.values(), ids=NETWORK_DAMAGES)
def test_damaged_networks_are_bundle_errors(bundle: Bundle, damage: Callable[[Path], object], tmp_path: Path, home: Path) -> None:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    from costroute_rt.engines.building.build import build_engines
    from costroute_rt.engines.store.store import Store

    write_network_router(bundle, tmp_path / "fitted")
    damage(tmp_path / "fitted")

    def build() -> None:
        made = with_router(bundle, tmp_path / "fitted", tmp_path / "bundle")
        build_engines(made, Store.open(home), [name for name in engine_names(made) if "/router_" in name], measure=False)

    with pytest.raises(BundleError):
        build()


def test_a_manifest_must_hold_the_networks_its_router_was_fitted_with(bundle: Bundle, tmp_path: Path) -> None:
    write_network_router(bundle, tmp_path / "fitted")
    made = with_router(bundle, tmp_path / "fitted", tmp_path / "bundle")
    manifest = json.loads((made.root / "manifest.json").read_text())
    parts = {name.replace("router_estimator", "another"): part for name, part in manifest["components"].items()}
    with pytest.raises(BundleError, match="router_estimator/estimate is not the network"):
        open_router(seal_bundle(made.root, {**manifest, "components": parts}))
    with pytest.raises(BundleError, match=r"router/tokenizer\.json to be the router's"):
        open_router(seal_bundle(made.root, {**manifest, "router": {**manifest["router"], "tokenizer": "tokenizer/tokenizer.json"}}))
    path = "router/router_estimator.onnx"
    for name, spec in (("states", {"dtype": "float32", "shape": [1, WIDTH]}), ("lengths", {"dtype": "int32", "shape": ["batch"]})):
        inputs = {**manifest["graphs"][path]["inputs"], name: spec}
        with pytest.raises(BundleError, match=name):
            seal_bundle(made.root, {**manifest, "graphs": {**manifest["graphs"], path: {**manifest["graphs"][path], "inputs": inputs}}})
    inputs = {**manifest["graphs"][path]["inputs"], "states": {"dtype": "float32", "shape": ["batch", "tokens", WIDTH + 1]}}
    changed = {**manifest["graphs"], path: {**manifest["graphs"][path], "inputs": inputs}}
    with pytest.raises(BundleError, match="not the network"):
        open_router(seal_bundle(made.root, {**manifest, "graphs": changed}))
