"""A router: what it judges, when it trusts itself, how it is kept, and where it belongs."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from costroute_rt.engines.building.usage import survey
from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle
from costroute_rt.engines.bundle.size import free_axes
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BundleError, ConfigError, OutputError
from costroute_rt.family.calls import engine_names
from costroute_rt.routing.estimator import Average, Knn, Mean
from costroute_rt.routing.prompt_encoder import HashedEncoder, StatesEncoder, TextStates
from costroute_rt.routing.quality import AverageQuality
from costroute_rt.routing.router import Router, describe_pool, fingerprint, pool_difference
from costroute_rt.routing.router_bundle import open_router, text_encoder_sha256, with_router
from costroute_rt.routing.router_file import ROUTER_ARRAYS, ROUTER_JSON
from costroute_rt.runtime import Runtime
from tests.engines.conftest import users
from tests.runtime.fakes import LOAD_MS, FakeDevice
from tests.small_network import expect, make_estimator, open_encoder, write_encoder, write_estimator
from tests.small_router import PROMPTS, make_router
from tests.tiny_bundle import WIDTH


@pytest.fixture
def router(bundle: Bundle) -> Router:
    return make_router(bundle.pool)


@pytest.mark.parametrize("estimator", ["knn", "linear", "mean"])
def test_prompts_get_what_prompts_like_them_needed(bundle: Bundle, estimator: str) -> None:
    router = make_router(bundle.pool, estimator)
    short, long = router.judge("a red bird", None), router.judge("a blue tree at night, with snow", None)
    assert (short.mean.argmax(), long.mean.argmax()) == (0, 3)
    assert (short.trust, short.note) == (1, None)
    assert short.basis == f"{estimator} estimator on 60 labelled prompts"
    assert (short.standard_error > 0).all()


def test_the_nearest_labelled_prompts_are_named(router: Router) -> None:
    nearest = router.judge("a red bird", None).nearest
    assert nearest[0].prompt == "a red bird"
    assert nearest[0].similarity == pytest.approx(1, abs=1e-5)
    assert [each.similarity for each in nearest] == sorted((each.similarity for each in nearest), reverse=True)


def test_a_prompt_unlike_all_leans_on_the_averages(router: Router) -> None:
    far = router.judge("quarterly tax return spreadsheet", None)
    assert far.trust == 0
    np.testing.assert_allclose(far.mean, router.average.mean)
    assert far.note == "far from every labelled prompt: averages are used"


def test_trust_falls_in_a_line_between_near_and_far(router: Router) -> None:
    prompts = ["a red bird", "a yellow bird over stones", "tax return"]
    features = router.encode(prompts, None)
    lengths = np.linalg.norm(features, axis=1)
    cosine = (features @ router.features.T) / lengths[:, None] / np.linalg.norm(router.features, axis=1)
    distance = 1 - np.sort(cosine)[:, -5] * np.minimum(lengths, 1)
    for near, far in ((0.0, 2.0), (0.4, 0.9)):
        bent = replace(router, near=near, far=far)
        trust = bent.trust(features)
        np.testing.assert_allclose(trust, np.clip((far - distance) / (far - near), 0, 1), atol=1e-5)
        expected = trust[:, None] * router.estimator.estimate(features, None)[0] + (1 - trust[:, None]) * router.average.mean
        np.testing.assert_allclose(bent.judge_all(prompts, None)[0], expected)


def test_what_is_half_trusted_is_less_certain_where_the_two_differ(router: Router) -> None:
    bent, prompts = replace(router, near=0.0, far=1.4), ["a red bird at dawn"]
    _, error, trust = bent.judge_all(prompts, None)
    own, own_error = bent.estimator.estimate(bent.encode(prompts, None), None)
    assert trust[0] == pytest.approx(0.5, abs=0.01)
    apart = np.abs(own[0] - router.average.mean)
    np.testing.assert_allclose(error[0] ** 2, (own_error[0] ** 2 + router.average.standard_error**2) / 2 + (apart / 2) ** 2, rtol=0.01)


def test_many_prompts_are_judged_as_one_is(router: Router) -> None:
    prompts = ["a red bird", "a boat at night, with snow", "tax return"]
    mean, error, trust = router.judge_all(prompts, None)
    for index, prompt in enumerate(prompts):
        one = router.judge(prompt, None)
        np.testing.assert_allclose(one.mean, mean[index], rtol=1e-5)
        np.testing.assert_allclose(one.standard_error, error[index], rtol=1e-4)
        assert one.trust == pytest.approx(trust[index], abs=1e-6)


def test_a_router_that_gained_nothing_judges_all_alike_and_says_why(bundle: Bundle) -> None:
    router = make_router(bundle.pool, routes_on="average", reason="the gain is not above zero")
    judgement = router.judge("a red bird", None)
    np.testing.assert_array_equal(judgement.mean, router.average.mean)
    assert judgement.basis == "averages of 60 labelled prompts: the gain is not above zero"
    assert (judgement.trust, judgement.note, judgement.nearest) == (1, None, ())
    assert not replace(router, encoder=HashedEncoder(512)).needs_states
    mean, error, trust = router.judge_all(["a", "b"], None)
    assert (mean.shape, error.shape, trust.tolist()) == ((2, 4), (2, 4), [1, 1])


def test_one_prompt_is_judged_on_one_thread_and_the_threads_are_given_back(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    if not blas_threads():
        pytest.skip("NumPy's library for matrices is none whose threads can be told")
    seen = []
    estimate = Mean.estimate

    def watched(self: Mean, *arguments: Any) -> Any:
        seen.append(blas_threads())
        return estimate(self, *arguments)

    monkeypatch.setattr(Mean, "estimate", watched)
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        router.judge("a red house", None)
        assert blas_threads() == before
    assert seen == [{1}]
    assert before == {2}


def test_two_that_judge_at_once_give_the_threads_back(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    before = blas_threads()
    if max(before, default=1) == 1:
        pytest.skip("NumPy's library for matrices has one thread here, or none whose threads can be told")
    first_inside, second_inside, first_done, estimate = threading.Event(), threading.Event(), threading.Event(), Mean.estimate

    def slow(self: Mean, *arguments: Any) -> Any:
        if threading.current_thread() is first:
            first_inside.set()
            second_inside.wait(timeout=0.5)  # it should not come as far
        else:
            second_inside.set()
            first_done.wait(timeout=5)
        return estimate(self, *arguments)

    def judge_first() -> None:
        router.judge("a red house", None)
        first_done.set()

    monkeypatch.setattr(Mean, "estimate", slow)
    first = threading.Thread(target=judge_first)
    first.start()
    assert first_inside.wait(timeout=5)
    router.judge("a blue boat", None)
    first.join()
    assert blas_threads() == before


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_search_serves_the_estimator_and_the_trust(router: Router) -> None:
    assert isinstance(router.estimator, Mean)
    assert router._neighbours is router.estimator.members[0].neighbours  # type: ignore[attr-defined]
    assert make_router(tuple(router.pool), "linear")._neighbours.features is not None


def states_router(bundle: Bundle, **changes: Any) -> tuple[Router, TextStates]:
    rng = np.random.default_rng(0)
    states = TextStates(rng.normal(size=(len(PROMPTS), 4, 3)).astype(np.float32), np.full(len(PROMPTS), 4))
    features = StatesEncoder(3).encode(PROMPTS, states)
    mean = 0.5 + 0.1 * rng.normal(size=(len(PROMPTS), len(bundle.pool)))
    knn = Knn.fit(features, mean, np.ones_like(mean))
    arguments = {"encoder": StatesEncoder(3), "reduction": None, "estimator": knn, "features": features}
    return make_router(bundle.pool, **{**arguments, "text_encoder": text_encoder_sha256(bundle), **changes}), states


def test_a_router_may_read_the_text_states(bundle: Bundle) -> None:
    router, states = states_router(bundle)
    assert router.needs_states
    assert router.judge(PROMPTS[3], states.select([3])).nearest[0].prompt == PROMPTS[3]
    with pytest.raises(ConfigError, match="states"):
        router.judge(PROMPTS[3], None)
    assert not replace(router, routes_on="average").needs_states


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"routes_on": "luck"}, "routes_on"),
        ({"near": 0.8}, "near"),
        ({"near": -0.1}, "near"),
        ({"far": float("nan")}, "near"),
        ({"prompts": PROMPTS[1:]}, "features"),
        ({"prompts": (), "features": np.zeros((0, 16), dtype=np.float32)}, "features"),
        ({"features": np.full((60, 16), np.nan, dtype=np.float32)}, "finite"),
        ({"features": np.zeros((60, 9), dtype=np.float32)}, "features"),
        ({"encoder": HashedEncoder(64)}, "reduction"),
        ({"average": Average(np.ones(2), np.ones(2), np.ones(2))}, "pool"),
        ({"estimator": Average(np.ones(2), np.ones(2), np.ones(2))}, "estimator"),
    ],
)
def test_parts_that_do_not_fit_are_refused(bundle: Bundle, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make_router(bundle.pool, **changes)


@pytest.mark.parametrize("estimator", ["knn", "linear", "mean", "average"])
def test_a_saved_router_judges_the_same(bundle: Bundle, tmp_path: Path, estimator: str) -> None:
    router = make_router(bundle.pool, estimator, near=0.2, far=1.5)
    router.save(tmp_path / "router")
    again = Router.load(tmp_path / "router")
    assert (again.pool, again.prompts, again.encoder, again.record) == (router.pool, router.prompts, router.encoder, router.record)
    for one, other in zip(router.judge_all(PROMPTS, None), again.judge_all(PROMPTS, None), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / ROUTER_JSON).read_bytes() == (tmp_path / "router" / ROUTER_JSON).read_bytes()


def test_features_are_kept_once_and_in_half(bundle: Bundle, tmp_path: Path) -> None:
    router = make_router(bundle.pool, "knn")
    router.save(tmp_path)
    without = make_router(bundle.pool, "average")
    without.save(tmp_path / "average")
    labels_bytes = 2 * 4 * len(PROMPTS) * 4 + 3 * 4 * 4
    sizes = [(folder / ROUTER_ARRAYS).stat().st_size for folder in (tmp_path, tmp_path / "average")]
    assert sizes[0] - sizes[1] < labels_bytes + 500
    again = Router.load(tmp_path)
    assert again._neighbours is again.estimator.neighbours  # type: ignore[attr-defined]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def rewrite(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        settings = json.loads((folder / ROUTER_JSON).read_text())
        (folder / ROUTER_JSON).write_text(json.dumps({name: value for name, value in {**settings, **changes}.items() if value != "drop"}))

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no JSON": lambda folder: (folder / ROUTER_JSON).unlink(),
    "no arrays": lambda folder: (folder / ROUTER_ARRAYS).unlink(),
    "cut JSON": lambda folder: cut(folder / ROUTER_JSON),
    "cut arrays": lambda folder: cut(folder / ROUTER_ARRAYS),
    "a list": lambda folder: (folder / ROUTER_JSON).write_text("[]") and None,
    "another format": rewrite(format="something"),
    "a later version": rewrite(format_version=99),
    "another encoder": rewrite(encoder={"kind": "abacus"}),
    "fewer dimensions": rewrite(encoder={"kind": "hashed", "dimensions": 100, "orders": [1, 2]}),
    "another estimator": rewrite(estimator={"kind": "abacus"}),
    "an estimator that is text": rewrite(estimator="knn"),
    "members that are numbers": rewrite(estimator={"kind": "mean", "members": [1, 2]}),
    "fewer prompts": rewrite(prompts=["a"]),
    "prompts that are numbers": rewrite(prompts=[1] * 60),
    "an empty pool": rewrite(pool=[]),
    "a pool without names": rewrite(pool=[{}]),
    "a shared array that is not there": rewrite(shared={"estimator/features": "nothing"}),
    "no distance": rewrite(near="drop"),
    "an unknown rule": rewrite(routes_on="luck"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_routers_are_bundle_errors(router: Router, damage: Callable[[Path], None], tmp_path: Path) -> None:
    router.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(BundleError):
        Router.load(tmp_path)


def test_arrays_with_nan_are_refused_even_when_sealed(router: Router, tmp_path: Path) -> None:
    spoiled = replace(router)
    spoiled.average.mean[0] = np.nan
    spoiled.save(tmp_path)
    with pytest.raises(BundleError, match="not finite"):
        Router.load(tmp_path)


def test_the_difference_between_pools_is_named(bundle: Bundle) -> None:
    pool = describe_pool(bundle.pool)
    assert pool_difference(bundle.pool, pool) is None
    assert fingerprint(bundle.pool) == fingerprint(pool) != fingerprint(pool[1:])
    assert "knows nothing about tiny-turbo@1" in str(pool_difference(pool, pool[1:]))
    assert "fitted for tiny-turbo@1, not in the bundle" in str(pool_difference(pool[1:], pool))
    assert "order" in str(pool_difference(pool, pool[::-1]))
    changed = ({**pool[0], "num_inference_steps": 3}, *pool[1:])
    assert pool_difference(pool, changed) == "it was fitted for tiny-turbo@1 with num_inference_steps 3, the bundle has 1"


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


def test_an_existing_bundle_is_replaced_only_when_asked(router: Router, bundle: Bundle, tmp_path: Path) -> None:
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
    with pytest.raises(OutputError, match="no bundle"):
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
    pytest.importorskip("onnxruntime")
    router.save(tmp_path / "fitted")
    made = with_router(bundle, tmp_path / "fitted", tmp_path / "bundle")
    with Runtime.open(made.root, build=True) as runtime:
        short, long = runtime.route("a red bird"), runtime.route("a blue tree at night, with snow")
        assert (short.chosen.name, long.chosen.name) == ("tiny-turbo@1", "tiny-base@8")
        told = short.to_json()["router"]
        assert told["nearest"][0]["prompt"] == "a red bird"
        assert told["basis"].startswith("mean estimator")
        assert runtime.generate("a red bird", seed=1).route.chosen.name == "tiny-turbo@1"


def test_a_router_on_fake_engines_is_asked_once_a_request(bundle: Bundle, open_device: Callable[..., FakeDevice]) -> None:
    device = open_device(quality=make_router(bundle.pool))
    result = device.runtime.generate("a red bird", seed=1)
    assert result.route.judgement is not None
    assert result.to_json()["route"]["router"]["trust"] == 1


def write_network_router(bundle: Bundle, folder: Path, estimator: str = "transformer") -> tuple[np.ndarray, np.ndarray]:
    """A router that reads prompts with a network, judges with another, and trusts it everywhere; returns what the networks hold."""
    folder.mkdir()
    table, matrix = write_encoder(folder), write_estimator(folder, WIDTH, len(bundle.pool))
    features = np.random.default_rng(0).normal(size=(len(PROMPTS), table.shape[1])).astype(np.float32)
    network = make_estimator(WIDTH, len(bundle.pool))
    changes = {"estimator": network, "encoder": open_encoder(folder), "reduction": None, "features": features, "near": 2.0, "far": 2.0}
    if estimator == "mean":
        changes["estimator"] = Mean((Knn.fit(features, np.full((60, 4), 0.5), np.ones((60, 4))), network))
    make_router(bundle.pool, text_encoder=text_encoder_sha256(bundle), **changes).save(folder)
    return table, matrix


@pytest.mark.parametrize("estimator", ["transformer", "mean"])
def test_an_opened_runtime_routes_by_a_routers_own_networks(bundle: Bundle, tmp_path: Path, home: Path, estimator: str) -> None:
    pytest.importorskip("onnxruntime")
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
    used_by = {each.engine: each.used_by for each in survey(made, Store.open(), users(made))}
    assert {used_by["tiny/router_encoder/encode"], used_by["tiny/router_estimator/estimate"]} == {tuple(row["name"] for row in made.pool)}
    with Runtime.open(made.root, preload=False) as runtime:
        assert runtime.generate("a red house", seed=1).timings.swap_ms > 0


def test_backends_that_ask_are_told_how_many_tokens_a_routers_encoder_reads(bundle: Bundle, tmp_path: Path) -> None:
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


def test_a_new_router_takes_the_place_of_the_old_ones_networks(bundle: Bundle, router: Router, tmp_path: Path) -> None:
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
def test_a_router_without_one_of_its_files_makes_no_bundle(bundle: Bundle, tmp_path: Path, name: str) -> None:
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
    pytest.importorskip("onnxruntime")
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


def test_a_routers_engines_are_loaded_within_the_request_and_counted(open_device: Callable[..., FakeDevice]) -> None:
    class Asks:
        needs_states, engines = False, ("base/condition",)

        def judge(self, prompt: str, states: TextStates | None) -> Any:
            return AverageQuality(np.arange(4.0)[::-1], np.zeros(4)).judge(prompt, None)

    device = open_device(quality=Asks(), preload=False)
    route = device.runtime.route("a lake")
    assert route.option.cost.swap_ms == pytest.approx(4 * LOAD_MS)
    assert not device.engines
    result = device.runtime.generate("a lake", seed=1)
    assert result.route.chosen.name == "turbo@1"
    assert result.timings.swap_ms == pytest.approx(4 * LOAD_MS)
    assert "tiny/base/condition" in device.engines


def test_the_first_guess_at_overhead_grows_by_the_routers_engines() -> None:
    from costroute_rt.cost.correction import Correction

    assert Correction(lambda: 0.0, routing_ms=5.0).overhead_ms() == 5.0 + Correction(lambda: 0.0).overhead_ms()
