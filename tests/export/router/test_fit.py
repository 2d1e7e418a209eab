"""Cross-validation and shrinkage, on labels whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.export.router import cross_validation as cv
from costroute_rt.export.router.cells import Cells, make_cells
from costroute_rt.export.router.fit import decide, describe, fit_router, learn, trust_range
from costroute_rt.export.router.grid import ESTIMATORS, FitOptions
from costroute_rt.export.router.shrinkage import Slope
from costroute_rt.routing.prompt_encoder import HashedEncoder
from costroute_rt.routing.router import Router

KINDS = (["cat", "dog", "bird", "fish"], ["red", "blue", "green", "grey"])
NAMES = ("animals", "colours", "neither")


def make_prompts(count: int, seed: int = 0) -> list[tuple[str, int]]:
    """Texts of two kinds that differ in their words."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 2, count)
    return [(" ".join(rng.choice(KINDS[kind], 3)) + f" {index}", int(kind)) for index, kind in enumerate(kinds)]


def make(
    count: int = 200, *, signal: float = 0.3, noise: float = 0.1, seeds: int = 3, cost: Sequence[float] = (np.nan,) * 3, seed: int = 0
) -> Cells:
    """Labels where the first candidate is better for one kind of prompt and the second for the other; with signal 0 there is noise only."""
    rng = np.random.default_rng(seed)
    prompts = make_prompts(count, seed)
    truth = np.array([[0.5 + signal * (kind == 0), 0.5 + signal * (kind == 1), 0.5] for _, kind in prompts])
    prompt, candidate = (index.ravel().repeat(seeds) for index in np.indices(truth.shape))
    return make_cells(
        prompt_ids=tuple(str(index) for index in range(count)),
        prompts=tuple(text for text, _ in prompts),
        categories=tuple("ab"[kind] for _, kind in prompts),
        candidates=NAMES,
        prompt=prompt.astype(np.int64),
        candidate=candidate.astype(np.int64),
        score=truth[prompt, candidate] + noise * rng.standard_normal(len(prompt)),
        cost_ms=np.array(cost, dtype=np.float64)[candidate],
    )


def features(cells: Cells) -> np.ndarray:
    return HashedEncoder(512).encode(cells.prompts, None)


def test_a_signal_in_the_words_is_found_and_routed_by() -> None:
    cells = make()
    learned = learn(cells, features(cells))
    assert learned.routes_on == "prompt"
    assert learned.validation is not None
    # Either candidate alone is right half of the time: routing gains half of the signal.
    assert learned.validation.gain.value == pytest.approx(0.15, abs=0.03)
    assert learned.validation.gain.low > 0.1
    new = make(100, seed=5)
    choice = learned.estimate(features(new)).argmax(1)
    assert np.mean(choice == [kind for _, kind in make_prompts(100, 5)]) > 0.95
    assert f"{learned.validation.gain.value:+.4f}" in learned.reason


def test_noise_hardly_counts() -> None:
    """The slope is above its error by luck once in six times; then it is shrunk."""
    factors = []
    for seed in range(12):
        cells = make(120, signal=0, seed=seed)
        learned = learn(cells, features(cells), options=FitOptions(estimators=("linear",), dimensions=16))
        factors.append(learned.shrinkage.near)
        if not factors[-1]:
            assert learned.routes_on == "average"
            assert "the prompt does not count" in learned.reason
            assert np.ptp(learned.estimate(features(cells)), axis=0).max() == 0
    assert factors.count(0.0) >= 7
    assert np.mean(factors) < 0.2


def test_noise_looks_like_a_gain_as_rarely_as_the_interval_promises() -> None:
    """One-sided 2.5 %; allows for folds that share prompts."""
    found = 0
    for seed in range(60):
        cells = make(60, signal=0, seeds=1, seed=seed)
        found += cv.cross_validate(cells, features(cells), options=FitOptions(estimators=("linear",), dimensions=16)).gain.low > 0
    assert found <= 6


@pytest.mark.parametrize("count", [1, 3, 19])
def test_too_few_prompts_give_averages_and_the_reason(count: int) -> None:
    cells = make(count)
    learned = learn(cells, features(cells))
    assert (learned.routes_on, learned.validation) == ("average", None)
    assert f"{count} prompts are labelled for two candidates or more" in learned.reason
    assert np.isfinite(learned.estimate(features(make(10, seed=9)))).all()
    assert describe(learned, cells, {})["cross_validation"] is None


def test_the_same_text_many_times_is_one_prompt() -> None:
    cells = replace(make(60), prompts=("a lake",) * 60, groups=np.zeros(60, dtype=np.int64))
    assert learn(cells, features(cells)).reason.startswith("1 prompts")


def test_a_single_candidate_gives_averages() -> None:
    cells = make(40)
    single = replace(
        cells,
        candidates=cells.candidates[:1],
        mean=cells.mean[:, :1],
        variance=cells.variance[:, :1],
        count=cells.count[:, :1],
        cost_ms=cells.cost_ms[:1],
    )
    learned = learn(single, features(single))
    assert (learned.routes_on, learned.reason) == ("average", "there is only one candidate, animals")


def test_equal_texts_never_cross_folds() -> None:
    groups = np.random.default_rng(0).integers(0, 30, 200)
    fold = cv.split_folds(groups, 5, seed=1)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))


def test_memorised_repeats_are_not_a_gain() -> None:
    """Every text appears twice with the same noise, so a gain vanishes only if folds keep equal texts together."""
    cells = make(80, signal=0, noise=0.3, seeds=1)
    twice = cells.select(np.tile(np.arange(80), 2))
    assert cv.cross_validate(twice, features(twice)).gain.low <= 0
    apart = replace(twice, groups=np.arange(160))
    assert cv.cross_validate(apart, features(apart)).gain.low > 0.05


def test_leaving_a_category_out_shows_the_gain_on_unseen_kinds() -> None:
    cells = make()
    found = cv.cross_validate(cells, features(cells))
    assert found.leave_category_out is not None
    assert found.leave_category_out.value < 0.02 < found.gain.value
    assert cv.cross_validate(replace(cells, categories=None), features(cells)).leave_category_out is None


def test_prompts_with_missing_labels_are_used() -> None:
    cells = make()
    mean, count = cells.mean.copy(), cells.count.copy()
    hidden = np.random.default_rng(0).random(mean.shape) < 0.2
    mean[hidden], count[hidden] = np.nan, 0
    holey = replace(cells, mean=mean, variance=np.where(hidden, np.nan, cells.variance), count=count)
    learned = learn(holey, features(holey))
    assert learned.routes_on == "prompt"
    assert learned.validation is not None
    assert np.isfinite(learned.validation.estimate).all()


def test_noisy_cells_have_less_weight_in_the_choice() -> None:
    cells = make(50)
    wrong = cells.mean.copy()
    wrong[0, 0] += 1
    sure = cv.squared_errors(cells, wrong)[0]
    unsure = replace(cells, variance=np.where(np.arange(50)[:, None] == 0, 100 * cells.variance, cells.variance))
    assert cv.squared_errors(unsure, wrong)[0] < sure / 3


def test_an_error_shared_by_all_candidates_does_not_count() -> None:
    cells = make(50)
    assert cv.squared_errors(cells, cells.mean + 7.0) == pytest.approx(np.zeros(50), abs=1e-9)


def test_costs_make_the_gain_one_over_tradeoffs() -> None:
    """All candidates are equally good for the second kind of prompt, so the cheapest should get it."""
    cells = make(cost=[10.0, 20.0, 5.0])
    assert cells.has_cost
    lams = cv.tradeoffs(cells)
    assert lams[0] == 0
    assert len(lams) > 5
    perfect = cv.gains(cells, cells.mean)
    assert (perfect >= -1e-12).all() or perfect.mean() > 0
    constant = np.broadcast_to(cells.mean.mean(0), cells.mean.shape)
    assert cv.gains(cells, constant) == pytest.approx(np.zeros(len(cells)), abs=1e-12)


def test_an_unknown_estimator_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'magic'.*knn, linear, mean, transformer"):
        FitOptions(estimators=("magic", "knn"))
    with pytest.raises(ConfigError, match="estimator"):
        FitOptions(estimators=())


def test_a_single_fold_is_refused() -> None:
    with pytest.raises(ConfigError, match="folds is 1"):
        FitOptions(folds=1)


def test_only_the_given_estimators_are_chosen_from() -> None:
    cells = make(60)
    for name in ESTIMATORS:
        assert cv.cross_validate(cells, features(cells), options=FitOptions(estimators=(name,))).chosen.kind == name


def test_a_candidate_without_labels_is_named() -> None:
    cells = make(30)
    count, mean = cells.count.copy(), cells.mean.copy()
    count[:, 2], mean[:, 2] = 0, np.nan
    with pytest.raises(ConfigError, match="none of neither"):
        learn(replace(cells, count=count, mean=mean), features(cells))


def test_the_record_is_plain_data() -> None:
    cells = make(60, cost=[10.0, 20.0, 5.0])
    learned = learn(cells, features(cells))
    record = json.loads(json.dumps(describe(learned, cells, {"sha256": "0" * 64}), allow_nan=False))
    assert record["labels"]["prompts"] == 60
    assert record["labels"]["labels"] == 540
    assert record["labels"]["candidates"]["animals"]["cost_ms"] == 10.0
    assert record["cross_validation"]["gain"]["low"] <= record["cross_validation"]["gain"]["value"]
    assert record["cross_validation"]["chosen"] in record["cross_validation"]["losses"]


def test_the_same_labels_give_the_same_router() -> None:
    cells = make(60)
    first, second = (learn(cells, features(cells)) for _ in range(2))
    assert first.reason == second.reason
    np.testing.assert_array_equal(first.estimate(features(cells)), second.estimate(features(cells)))


def test_trust_begins_to_fall_beyond_nearly_all_labelled_prompts() -> None:
    rng = np.random.default_rng(0)
    cluster = (rng.normal(size=(300, 8)) * 0.1 + np.eye(8)[0]).astype(np.float32)
    near, far = trust_range(cluster)
    assert 0 < near < 0.2
    assert near < far < 1
    assert trust_range(cluster[:1]) == (0.0, 1.0)
    assert trust_range(np.zeros((4, 8), dtype=np.float32)) == pytest.approx((0.98, 0.99))


def test_the_prompt_counts_as_far_as_its_slope_is_sure() -> None:
    cells = make(60)
    found = cv.cross_validate(cells, features(cells))
    assert decide(cells, replace(found, slope=Slope(0.8, 0.4)))[0].near == pytest.approx(0.6)
    assert not decide(cells, replace(found, slope=Slope(0.4, 0.4)))[0]
    assert not decide(cells, replace(found, slope=Slope(-0.4, 0.1)))[0]


def test_a_table_without_a_complete_prompt_is_learned_from() -> None:
    cells = make(300)
    hidden = np.arange(3) == np.random.default_rng(7).integers(0, 3, len(cells))[:, None]
    sparse = replace(cells, mean=np.where(hidden, np.nan, cells.mean), variance=np.where(hidden, np.nan, cells.variance),
                     count=np.where(hidden, 0, cells.count))  # fmt: skip
    assert not cv.complete_prompts(sparse).any()
    learned = learn(sparse, features(sparse))
    assert learned.shrinkage.near > 0.8
    new = make(100, seed=5)
    assert np.mean(learned.estimate(features(new)).argmax(1) == [kind for _, kind in make_prompts(100, 5)]) > 0.95
    assert learned.validation is not None
    assert learned.validation.gain.value == pytest.approx(0.15, abs=0.04)


POOL = [
    {"name": name, "denoiser": "base", "scheduler": "default", "num_inference_steps": 4, "guidance_scale": 1.0, "decoder": "vae"}
    for name in NAMES
]


def test_a_router_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    cells = make(80)
    router = fit_router(cells, HashedEncoder(512), None, pool=POOL, labels={"sha256": "0" * 64})
    router.save(tmp_path / "router")
    loaded = Router.load(tmp_path / "router")
    new = [text for text, _ in make_prompts(20, 7)]
    for before, after in zip(router.estimate(new, None), loaded.estimate(new, None), strict=True):
        np.testing.assert_allclose(before, after, atol=2e-3)
    assert loaded.record["cross_validation"]["gain"]["low"] > 0
    assert loaded.record["labels"]["sha256"] == "0" * 64
    assert loaded.reason == router.reason


def test_a_judgement_by_averages_has_the_reason() -> None:
    router = fit_router(make(3), HashedEncoder(512), None, pool=POOL, labels={})
    judgement = router.judge("cat dog", None)
    assert "3 prompts are labelled for two candidates or more" in judgement.basis
    assert judgement.mean.tolist() == router.judge("red blue", None).mean.tolist()


def test_labels_of_another_pool_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"animals, colours, neither.*those of the pool: animals"):
        fit_router(make(30), HashedEncoder(512), None, pool=POOL[:1], labels={})


def test_a_strict_router_keeps_honest_estimates_as_evidence() -> None:
    cells = make(80)
    router = fit_router(cells, HashedEncoder(512), None, pool=POOL, labels={}, options=FitOptions(strict=True))
    assert router.evidence is not None
    assert router.evidence.share(np.zeros(3)) > 0.8
    assert fit_router(make(3), HashedEncoder(512), None, pool=POOL, labels={}, options=FitOptions(strict=True)).evidence is None
    assert fit_router(cells, HashedEncoder(512), None, pool=POOL, labels={}).evidence is None
