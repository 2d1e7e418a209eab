"""Evaluations of routers whose quality is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.export.router import evaluate as ev
from costroute_rt.export.router.calibration import calibrate
from costroute_rt.export.router.cells import Cells, make_cells
from costroute_rt.export.router.estimates import Estimates

NAMES, COST = ("cheap", "dear"), np.array([10.0, 40.0])


def make(count: int = 200, *, seeds: tuple[int, ...] = (0, 1, 2, 3), noise: float = 0.05, costs: bool = True) -> Cells:
    """Every other prompt is long and served well by the expensive candidate only."""
    prompt, candidate, seed = (index.ravel() for index in np.indices((count, 2, len(seeds))))
    hard = prompt % 2 == 1
    truth = np.where(hard, np.where(candidate == 1, 0.9, 0.3), np.where(candidate == 1, 0.8, 0.82))
    luck = np.array([np.random.default_rng(number).normal(size=(count, 2)) for number in seeds])
    return make_cells(
        prompt_ids=tuple(f"p{index}" for index in range(count)),
        prompts=tuple(f"{index} " + "word " * (9 if index % 2 else 2) for index in range(count)),
        categories=tuple("hard" if index % 2 else "easy" for index in range(count)),
        candidates=NAMES,
        prompt=prompt.astype(np.int64),
        candidate=candidate.astype(np.int64),
        score=truth + noise * luck[seed, prompt, candidate],
        cost_ms=COST[candidate] if costs else np.full(len(prompt), np.nan),
    )


def estimates(cells: Cells, *, know: bool = True) -> Estimates:
    """A router that knows the kind of prompt, or one that knows averages."""
    average = np.array([0.56, 0.85])
    hard = np.array([name == "hard" for name in cells.categories or ()])
    perfect = np.where(hard[:, None], [0.3, 0.9], [0.82, 0.8])
    mean = perfect if know else np.broadcast_to(average, perfect.shape)
    return Estimates(mean=mean, standard_error=np.full(mean.shape, 0.05), trust=np.ones(len(cells)), average=average)


def judge(cells: Cells, **options: object) -> ev.Evaluation:
    halves = ev.split_seeds(lambda seeds: make(seeds=tuple(seeds)), [0, 1, 2, 3])
    return ev.evaluate(cells, estimates(cells), halves=halves, resamples=50, **options)  # type: ignore[arg-type]


def test_a_perfect_router_gets_good_figures() -> None:
    found = judge(make())
    router = found.figures["router"]
    assert router["area"].low > 0.05
    assert router["qnc"].value < 0.7
    assert router["gain_at_mean_cost"].value > 0
    assert found.figures["average"]["area"].value == pytest.approx(0, abs=1e-9)
    assert found.reachable_share == pytest.approx(1, abs=0.1)


def test_the_length_heuristic_equals_a_router_if_only_length_matters() -> None:
    found = judge(make())
    assert found.figures["length"]["area"].value == pytest.approx(found.figures["router"]["area"].value, abs=0.01)


def test_long_prompts_go_to_the_expensive_candidate() -> None:
    found = judge(make())
    cheapest, middle = found.shares[0], found.shares[len(found.shares) // 2]
    assert cheapest["candidates"]["cheap"]["share"] == 1
    assert middle["candidates"]["dear"]["words"] > middle["candidates"]["cheap"]["words"] + 5
    assert all(sum(row["share"] for row in level["candidates"].values()) == pytest.approx(1) for level in found.shares)


def test_calibration_shows_a_bias_and_a_slope() -> None:
    cells = make()
    right, shifted = estimates(cells), estimates(cells)
    shifted = replace(shifted, mean=0.5 * right.mean + 1.0)
    good, bad = calibrate(cells, right), calibrate(cells, shifted)
    assert good["slope"] == pytest.approx(1, abs=0.05)
    assert good["slope_by_prompt"] == pytest.approx(1, abs=0.05)
    assert abs(good["bias"]) < 0.01
    assert bad["slope"] == pytest.approx(2, abs=0.1)
    assert bad["bias"] > 0.5
    level = calibrate(cells, estimates(cells, know=False))
    assert level["slope_by_prompt"] is None
    assert good["rms_error"] == pytest.approx(good["label_noise"], rel=0.3)


def test_each_category_has_its_gain() -> None:
    found = {row["name"]: row for row in judge(make()).categories}
    assert set(found) == {"easy", "hard"}
    assert found["hard"]["gain"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["hard"]["prompts"] == 100
    assert judge(replace(make(), categories=("x",) * 5 + ("hard",) * 195)).categories[0]["name"] == "hard"


def test_predicted_time_is_compared_with_labelled_time() -> None:
    found = judge(make(), predicted_ms={"dear": 44.0, "other": 1.0}).ms
    assert found == [{"name": "dear", "predicted_ms": 44.0, "labelled_ms": 40.0, "ratio": 1.1}]


def test_labels_without_costs_are_evaluated_by_quality_only() -> None:
    cells = make(costs=False)
    found = ev.evaluate(cells, estimates(cells), resamples=50)
    assert set(found.figures["router"]) == {"gain"}
    assert found.curves == {}
    assert found.shares == []
    assert found.bands == found.above_averages == {}
    assert [row["prompts"] for row in found.against_trend] == [100, 0]
    assert found.reachable_share is None


def test_everything_is_plain_json() -> None:
    text = json.dumps(judge(make(), facts={"router": {"reason": "it gains"}}, router_ms=0.25).to_json(), allow_nan=False)
    value = json.loads(text)
    assert value["router"]["reason"] == "it gains"
    assert value["router_ms"] == 0.25
    assert set(value["curves"]) == set(value["bands"]) == set(value["above_averages"]) == {"router", "hull", "average", "length", "oracle"}
    assert [row["name"] for row in value["against_trend"]] == list(NAMES)
    assert value["prompt_decides"]["surely_above_averages_ms"]
    assert all(row["quality_interval"][0] <= row["quality"] <= row["quality_interval"][1] for row in value["candidates"])


def test_prompts_with_a_missing_label_count_too() -> None:
    cells = make()
    count, mean = cells.count.copy(), cells.mean.copy()
    count[:3, 0], mean[:3, 0] = 0, np.nan
    found = ev.evaluate(replace(cells, count=count, mean=mean), estimates(cells), resamples=20)
    assert (found.prompts, found.incomplete) == (200, 3)
    with pytest.raises(ConfigError, match="none of"):
        ev.evaluate(replace(cells, count=np.zeros_like(count)), estimates(cells))


def test_a_table_of_pairs_gives_about_the_same_figures() -> None:
    cells = make(2000)
    hidden = np.argsort(np.random.default_rng(3).random(cells.mean.shape), axis=1) >= 2
    sparse = replace(cells, mean=np.where(hidden, np.nan, cells.mean), count=np.where(hidden, 0, cells.count))
    full, part = (ev.evaluate(each, estimates(cells), resamples=20) for each in (cells, sparse))
    for name in ("gain", "area", "gain_at_mean_cost"):
        one, other = full.figures["router"][name], part.figures["router"][name]
        assert other.value == pytest.approx(one.value, abs=0.02), name
    assert part.calibration["slope_by_prompt"] == pytest.approx(full.calibration["slope_by_prompt"], abs=0.1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_prompts_are_evaluated_too(count: int) -> None:
    cells = make(count)
    found = ev.evaluate(cells, estimates(cells), resamples=20)
    assert found.prompts == count
    json.dumps(found.to_json(), allow_nan=False)


def test_one_seed_has_no_oracle_and_halves_share_their_prompts() -> None:
    assert ev.split_seeds(lambda seeds: make(seeds=tuple(seeds)), [0]) == []
    first, second = ev.split_seeds(lambda seeds: make(50 if 0 in seeds else 40, seeds=tuple(seeds)), [0, 1, 2])
    assert first.prompt_ids == second.prompt_ids
    assert len(first) == 40
    assert first.count[0, 0] == 2
    assert second.count[0, 0] == 1


def test_a_single_mean_cost_is_reported_once() -> None:
    cells = make()
    found = ev.evaluate(cells, estimates(cells, know=False), resamples=20)
    assert [level["cost_ms"] for level in found.shares] == [10.0, 40.0]


def test_choosing_on_noise_alone_loses_nothing_even_with_one_seed_each() -> None:
    def half(seed: int) -> Cells:
        cells = make(400, seeds=(seed,))
        return replace(cells, mean=0.8 + 0.2 * np.random.default_rng(seed).normal(size=(400, 2)))

    cells = make(400)
    found = ev.evaluate(cells, estimates(cells), halves=[half(0), half(1)], resamples=20)
    assert found.oracle is not None
    assert abs(found.oracle["gain"]) < 0.02
