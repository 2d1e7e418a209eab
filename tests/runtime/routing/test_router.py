"""A router: its judgements, its trust, and its files."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BundleError, ConfigError
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.familiarity import Familiarity, fall
from costroute_rt.routing.prompt_encoder import HashedEncoder, TextStates
from costroute_rt.routing.prompt_tag import tag_prompts
from costroute_rt.routing.quality import AverageQuality
from costroute_rt.routing.router import Router, describe_pool, fingerprint, pool_difference
from costroute_rt.routing.router_file import ROUTER_ARRAYS, ROUTER_JSON
from costroute_rt.routing.shrinkage import Shrinkage
from tests.runtime.fakes import LOAD_MS, FakeDevice
from tests.runtime.routing.routers import cut, states_router
from tests.small_router import PROMPTS, make_router


@pytest.mark.parametrize("estimator", ["knn", "linear", "mean"])
def test_a_prompt_gets_the_candidate_that_similar_prompts_needed(bundle: Bundle, estimator: str) -> None:
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


def test_a_prompt_unlike_all_labelled_ones_gets_the_averages(router: Router) -> None:
    far = router.judge("quarterly tax return spreadsheet", None)
    assert far.trust == 0
    np.testing.assert_allclose(far.mean, router.average.mean)
    assert far.note == "unlike the labelled prompts: averages count for more"


def test_trust_falls_linearly_between_near_and_far(router: Router) -> None:
    prompts = ["a red bird", "a yellow bird over stones", "tax return"]
    features = router.encode(prompts, None)
    lengths = np.linalg.norm(features, axis=1)
    cosine = (features @ router.features.T) / lengths[:, None] / np.linalg.norm(router.features, axis=1)
    distance = 1 - np.sort(cosine)[:, -5] * np.minimum(lengths, 1)
    for near, far in ((0.0, 2.0), (0.4, 0.9)):
        bent = replace(router, near=near, far=far)
        np.testing.assert_allclose(bent.distance(features), distance, atol=1e-5)
        trust = bent.estimate(prompts, None)[2]
        np.testing.assert_allclose(trust, np.clip((far - distance) / (far - near), 0, 1), atol=1e-5)
        expected = trust[:, None] * router.estimator.estimate(features, None)[0] + (1 - trust[:, None]) * router.average.mean
        np.testing.assert_allclose(bent.estimate(prompts, None)[0], expected)


def test_the_distance_between_estimate_and_average_adds_to_the_error(router: Router) -> None:
    bent, prompts = replace(router, near=0.0, far=1.4), ["a red bird at dawn"]
    _, error, trust = bent.estimate(prompts, None)
    own, own_error = bent.estimator.estimate(bent.encode(prompts, None), None)
    assert trust[0] == pytest.approx(0.5, abs=0.01)
    apart = np.abs(own[0] - router.average.mean)
    np.testing.assert_allclose(error[0] ** 2, (own_error[0] ** 2 + router.average.standard_error**2) / 2 + (apart / 2) ** 2, rtol=0.01)


def test_many_prompts_are_estimated_as_one_is_judged(router: Router) -> None:
    prompts = ["a red bird", "a boat at night, with snow", "tax return"]
    mean, error, trust = router.estimate(prompts, None)
    for index, prompt in enumerate(prompts):
        one = router.judge(prompt, None)
        np.testing.assert_allclose(one.mean, mean[index], rtol=1e-5)
        np.testing.assert_allclose(one.standard_error, error[index], rtol=1e-4)
        assert one.trust == pytest.approx(trust[index], abs=1e-6)


def test_a_router_without_a_gain_returns_averages_and_the_reason(bundle: Bundle) -> None:
    router = make_router(bundle.pool, shrinkage=Shrinkage(0.0), reason="the gain is not above zero")
    judgement = router.judge("a red bird", None)
    np.testing.assert_array_equal(judgement.mean, router.average.mean)
    assert judgement.basis == "averages of 60 labelled prompts: the gain is not above zero"
    assert (judgement.trust, judgement.note, judgement.nearest) == (1, None, ())
    assert not replace(router, encoder=HashedEncoder(512)).needs_states
    mean, error, trust = router.estimate(["a", "b"], None)
    assert (mean.shape, error.shape, trust.tolist()) == ((2, 4), (2, 4), [1, 1])


def test_one_prompt_is_judged_on_one_thread_and_the_limit_is_restored(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    if not blas_threads():
        pytest.skip("threadpoolctl finds no matrix library of NumPy, whose threads this test counts")
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


def test_two_threads_that_judge_at_once_restore_the_limit(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    before = blas_threads()
    if not before:
        pytest.skip("threadpoolctl finds no matrix library of NumPy, whose threads this test counts")
    if before == {1}:
        pytest.skip("NumPy's matrix library has one thread on this machine, so a limit of one cannot be seen to be lifted")
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


def test_a_router_may_read_the_text_states(bundle: Bundle) -> None:
    router, states = states_router(bundle)
    assert router.needs_states
    assert router.judge(PROMPTS[3], states.select([3])).nearest[0].prompt == PROMPTS[3]
    with pytest.raises(ConfigError, match="states"):
        router.judge(PROMPTS[3], None)
    assert not replace(router, shrinkage=Shrinkage(0.0)).needs_states


@pytest.mark.parametrize(
    ("changes", "match"),
    [
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
    for one, other in zip(router.estimate(PROMPTS, None), again.estimate(PROMPTS, None), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / ROUTER_JSON).read_bytes() == (tmp_path / "router" / ROUTER_JSON).read_bytes()


@pytest.mark.parametrize(("routes_on", "factor"), [("prompt", 1.0), ("average", 0.0)])
def test_a_router_of_version_1_judges_as_it_did(router: Router, tmp_path: Path, routes_on: str, factor: float) -> None:
    router.save(tmp_path)
    rewrite(format_version=1, shrinkage="drop", routes_on=routes_on)(tmp_path)
    again = Router.load(tmp_path)
    assert (again.shrinkage, again.routes_on) == (Shrinkage(factor), routes_on)
    assert "routes_on" not in again.record


def test_the_effect_of_the_prompt_is_shrunk_by_trust_and_evidence(router: Router) -> None:
    prompts = ["a red bird", "a yellow bird over stones", "tax return"]
    bent = replace(router, near=0.2, far=0.5, shrinkage=Shrinkage(0.8, 0.3))
    features = router.encode(prompts, None)
    distance = bent.distance(features)
    trust, reach = np.clip((0.5 - distance) / 0.3, 0, 1), np.clip((1 - distance) / 0.5, 0, 1)
    assert reach[0] > reach[2] > 0
    factor = (reach * (0.3 + 0.5 * trust))[:, None]
    own = router.estimator.estimate(features, None)[0]
    np.testing.assert_allclose(bent.estimate(prompts, None)[0], router.average.mean + factor * (own - router.average.mean))
    share = float(factor[0, 0])
    assert bent.judge("a red bird", None).basis == f"mean estimator on 60 labelled prompts ({share:.0%}) and averages ({1 - share:.0%})"


def test_a_prompt_of_an_unfamiliar_kind_counts_by_what_kinds_left_out_show(router: Router, tmp_path: Path) -> None:
    prompts = ["a red bird", "seven red birds", "no bird without a tree"]
    bent = replace(router, near=1.0, far=1.5, shrinkage=Shrinkage(0.8, 0.3), familiarity=Familiarity(tag_prompts(PROMPTS), 1.0, 4.0))
    features = router.encode(prompts, None)
    assert bent.familiarity is not None
    familiar = bent.familiarity.of_prompts(prompts)
    assert familiar[0] == 1 > familiar[1]
    expected = fall(bent.distance(features), 1.0, 1.5) * familiar
    own, factor = router.estimator.estimate(features, None)[0], 0.3 + 0.5 * expected
    mean, _, trust = bent.estimate(prompts, None)
    np.testing.assert_allclose(mean, router.average.mean + factor[:, None] * (own - router.average.mean))
    np.testing.assert_allclose(trust, expected)
    judged = bent.judge(prompts[1], None)
    np.testing.assert_allclose(judged.mean, mean[1], rtol=1e-6)
    assert judged.trust == pytest.approx(trust[1])
    bent.save(tmp_path)
    again = Router.load(tmp_path)
    np.testing.assert_allclose(again.judge(prompts[1], None).mean, mean[1], atol=2e-3)
    assert "familiarity" not in again.record
    rewrite(familiarity="drop")(tmp_path)
    assert Router.load(tmp_path).familiarity is None


@pytest.mark.parametrize("familiarity", [{}, [], {"tags": ["colours"], "near": 1, "far": 2}, {"tags": 1, "near": 1, "far": 2}])
def test_a_damaged_familiarity_is_refused(router: Router, tmp_path: Path, familiarity: Any) -> None:
    replace(router, familiarity=Familiarity(tag_prompts(PROMPTS), 1.0, 4.0)).save(tmp_path)
    rewrite(familiarity=familiarity)(tmp_path)
    with pytest.raises(BundleError):
        Router.load(tmp_path)


def test_features_are_saved_once_and_as_float16(bundle: Bundle, tmp_path: Path) -> None:
    router = make_router(bundle.pool, "knn")
    router.save(tmp_path)
    without = make_router(bundle.pool, "average")
    without.save(tmp_path / "average")
    labels_bytes = 2 * 4 * len(PROMPTS) * 4 + 3 * 4 * 4
    sizes = [(folder / ROUTER_ARRAYS).stat().st_size for folder in (tmp_path, tmp_path / "average")]
    assert sizes[0] - sizes[1] < labels_bytes + 500
    again = Router.load(tmp_path)
    assert again._neighbours is again.estimator.neighbours  # type: ignore[attr-defined]


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
    "no shrinkage": rewrite(shrinkage="drop"),
    "shrinkage above 1": rewrite(shrinkage={"near": 1.5, "far": 0.0}),
    "shrinkage that is NaN": rewrite(shrinkage={"near": float("nan"), "far": 0.0}),
    "an unknown rule of version 1": rewrite(format_version=1, routes_on="luck"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_routers_are_bundle_errors(router: Router, damage: Callable[[Path], None], tmp_path: Path) -> None:
    router.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(BundleError):
        Router.load(tmp_path)


def test_arrays_with_nan_are_refused_even_if_the_hash_matches(router: Router, tmp_path: Path) -> None:
    spoiled = replace(router)
    spoiled.average.mean[0] = np.nan
    spoiled.save(tmp_path)
    with pytest.raises(BundleError, match="not finite"):
        Router.load(tmp_path)


def test_the_difference_between_pools_is_named(bundle: Bundle) -> None:
    pool = describe_pool(bundle.pool)
    assert pool_difference(bundle.pool, pool) is None
    assert fingerprint(bundle.pool) == fingerprint(pool) != fingerprint(pool[1:])
    assert "not fitted for tiny-turbo@1" in str(pool_difference(pool, pool[1:]))
    assert "fitted for tiny-turbo@1, which the bundle does not have" in str(pool_difference(pool[1:], pool))
    assert "order" in str(pool_difference(pool, pool[::-1]))
    changed = ({**pool[0], "num_inference_steps": 3}, *pool[1:])
    assert pool_difference(pool, changed) == "it was fitted for tiny-turbo@1 with num_inference_steps 3, the bundle has 1"


def test_a_result_holds_the_routers_judgement(bundle: Bundle, open_device: Callable[..., FakeDevice]) -> None:
    device = open_device(quality=make_router(bundle.pool))
    result = device.runtime.generate("a red bird", seed=1)
    assert result.route.judgement is not None
    assert result.to_json()["route"]["router"]["trust"] == 1


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

    assert Correction(lambda: 0.0, routing_ms=5.0).overhead_ms().now == 5.0 + Correction(lambda: 0.0).overhead_ms().now
