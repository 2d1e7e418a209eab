"""Candidates added to a fitted router by a few labels: what they are estimated at, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.export.router.cells import Cells, make_cells
from costroute_rt.export.router.extension import MOST_PROMPTS, extend_router, useful_prompts
from costroute_rt.export.router.fit import fit_router
from costroute_rt.export.router.twin import LEAST_PAIRS
from costroute_rt.routing.array import FloatArray
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.extended import Extended, describe_added
from costroute_rt.routing.estimator.loading import load_estimator
from costroute_rt.routing.estimator.shift import Shift
from costroute_rt.routing.prompt_encoder import HashedEncoder
from costroute_rt.routing.router import Router

NAMES = ("short", "middle", "long")
THINGS = ("house", "boat", "tree", "mountain", "bird", "lake", "sheep")
PROMPTS = tuple(f"a {THINGS[row % 7]} number {row}" + (" at night with snow and a moon" if row % 2 else "") for row in range(160))
IS_LONG = np.arange(160) % 2 == 1
HELD_OUT = ("a house number 900", "a lake number 901 at night with snow and a moon")


def rows_of(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"name": name, **dict.fromkeys(("denoiser", "scheduler", "num_inference_steps", "guidance_scale", "decoder"))} for name in names
    ]


def quality(name: str) -> FloatArray:
    """The new candidate is the long one's twin, and a little better."""
    slope, level = {"short": (-0.1, 0.6), "middle": (0.0, 0.55), "long": (0.1, 0.6), "new": (0.12, 0.65), "other": (-0.1, 0.5)}[name]
    return level + slope * np.where(IS_LONG, 1, -1)


def make(names: tuple[str, ...], anchors: dict[str, int] | None = None, noise: float = 0.02) -> Cells:
    """Labels of all prompts, of some candidates only of the first so many."""
    rng, labelled = np.random.default_rng(1), []
    for column, name in enumerate(names):
        scores = quality(name) + noise * rng.normal(size=len(PROMPTS))
        labelled += [(row, column, scores[row]) for row in range((anchors or {}).get(name, len(PROMPTS)))]
    prompt, candidate, score = (np.array(each) for each in zip(*labelled, strict=True))
    return make_cells(
        prompt_ids=PROMPTS, prompts=PROMPTS, categories=None, candidates=names, prompt=prompt, candidate=candidate, score=score,
        cost_ms=np.full(len(score), np.nan),
    )  # fmt: skip


@pytest.fixture(scope="module")
def router() -> Router:
    return fit_router(make(NAMES), HashedEncoder(), None, pool=rows_of(NAMES), labels={"file": "a.csv"})


def extend(router: Router, pool: tuple[str, ...], cells: Cells) -> Router:
    return extend_router(router, cells, None, pool=rows_of(pool), labels={"file": "b.csv"})


def columns(router: Router, names: tuple[str, ...], prompts: tuple[str, ...] = HELD_OUT) -> tuple[FloatArray, FloatArray]:
    places = [[row["name"] for row in router.pool].index(name) for name in names]
    mean, error, _ = router.estimate(prompts, None)
    return mean[:, places], error[:, places]


@pytest.mark.parametrize("anchors", [0, 1, 40, 160])
def test_the_others_stay_bit_for_bit_what_they_were(router: Router, anchors: int, tmp_path: Path) -> None:
    router.save(tmp_path / "before")
    before = Router.load(tmp_path / "before")
    cells = make((*NAMES, "new"), {"new": anchors}) if anchors else make(NAMES)
    extend(before, ("new", "long", "short", "middle"), cells).save(tmp_path / "after")
    after = Router.load(tmp_path / "after")
    for found, expected in zip(columns(after, NAMES, PROMPTS), columns(before, NAMES, PROMPTS), strict=True):
        assert found.tobytes() == expected.tobytes()
    judged, former = after.judge(HELD_OUT[1], None), before.judge(HELD_OUT[1], None)
    assert judged.mean[[2, 3, 1]].tobytes() == former.mean.tobytes()
    assert judged.trust == former.trust
    assert (after.near, after.far, after.prompts) == (before.near, before.far, before.prompts)


def test_forty_labels_show_where_the_new_one_is_best(router: Router) -> None:
    extended = extend(router, (*NAMES, "new"), make((*NAMES, "new"), {"new": 40}))
    found, error = columns(extended, ("new",))
    assert found.ravel() == pytest.approx([0.53, 0.77], abs=0.03)
    assert (error < 0.06).all()
    assert extended.judge(HELD_OUT[0], None).mean.argmax() == 0
    assert extended.judge(HELD_OUT[1], None).mean.argmax() == 3


def test_the_average_is_of_all_prompts_not_of_the_anchors(router: Router) -> None:
    cells = make((*NAMES, "new"), {"new": 80})
    mostly_long = cells.select([*np.flatnonzero(IS_LONG)[:40], *np.flatnonzero(~IS_LONG)[:10], *range(80, 160)])
    extended = extend(router, (*NAMES, "new"), mostly_long)
    assert np.nanmean(mostly_long.mean[:, 3]) == pytest.approx(0.722, abs=0.01)
    assert extended.average.mean[3] == pytest.approx(0.65, abs=0.02)


def test_without_labels_the_error_is_wide(router: Router) -> None:
    none, some = extend(router, (*NAMES, "new"), make(NAMES)), extend(router, (*NAMES, "new"), make((*NAMES, "new"), {"new": 40}))
    (guess, wide), (_, narrow) = columns(none, ("new",)), columns(some, ("new",))
    assert (wide > 2 * narrow).all()
    assert (np.abs(guess.ravel() - [0.53, 0.77]) < 3 * wide.ravel()).all()


def test_a_prompt_without_labels_of_the_others_uses_their_estimates(router: Router) -> None:
    cells = make((*NAMES, "new"), {"new": 40})
    alone = replace(
        cells.select(range(40)), candidates=("new",), cost_ms=cells.cost_ms[3:],
        mean=cells.mean[:40, 3:], variance=cells.variance[:40, 3:], count=cells.count[:40, 3:],
    )  # fmt: skip
    found, _ = columns(extend(router, (*NAMES, "new"), alone), ("new",))
    assert found.ravel() == pytest.approx([0.53, 0.77], abs=0.06)


def test_two_are_added_one_after_the_other_or_at_once(router: Router) -> None:
    cells = make((*NAMES, "new", "other"), {"new": 40, "other": 40})
    first = extend(router, (*NAMES, "new"), cells)
    then = extend(first, ("other", *NAMES, "new"), cells)
    at_once = extend(router, ("other", *NAMES, "new"), cells)
    for one, other in zip(columns(then, ("other", *NAMES, "new")), columns(at_once, ("other", *NAMES, "new")), strict=True):
        np.testing.assert_array_equal(one, other)
    assert isinstance(then.estimator, Extended)
    assert then.estimator.added == {0: 40, 4: 40}
    assert set(then.record["added"]) == {"new", "other"}


def test_scores_in_other_units_give_the_same_choices(router: Router) -> None:
    cells = make((*NAMES, "new"), {"new": 40})
    scaled = replace(cells, mean=500 + 100 * cells.mean, variance=cells.variance)
    base = fit_router(replace(make(NAMES), mean=500 + 100 * make(NAMES).mean), HashedEncoder(), None, pool=rows_of(NAMES), labels={})
    other = columns(extend(base, (*NAMES, "new"), scaled), ("new",), PROMPTS)[0]
    found = columns(extend(router, (*NAMES, "new"), cells), ("new",), PROMPTS)[0]
    np.testing.assert_allclose(other, 500 + 100 * found, rtol=1e-4)


def test_route_says_what_an_estimate_rests_on(router: Router) -> None:
    extended = extend(router, (*NAMES, "new", "other"), make((*NAMES, "new"), {"new": 40}))
    basis = extended.judge(HELD_OUT[0], None).basis
    assert "160 labelled prompts" in basis
    assert basis.endswith("; new on 40 anchor prompts; other on its settings alone")


def test_settings_tell_which_others_it_is_like(router: Router) -> None:
    rows = rows_of((*NAMES, "new"))
    for row, denoiser, steps in zip(rows, ("a/one", "a/one", "b/two", "b/two"), (8, 4, 4, 8), strict=True):
        row |= {"denoiser": denoiser, "scheduler": "euler", "num_inference_steps": steps, "guidance_scale": 1.0, "decoder": "vae"}
    known = replace(router, pool=tuple(rows[:3]))
    extended = extend_router(known, make(NAMES), None, pool=rows, labels={})
    assert isinstance(extended.estimator, Extended)
    assert extended.estimator.additions[0].weights.argmax() == 2
    assert extended.estimator.additions[0].weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("pool", "problem"),
    [((*NAMES[:2], "new"), "it lacks long"), (NAMES, "does not have")],
    ids=["one of its own is missing", "nothing to add"],
)
def test_a_pool_that_does_not_extend_the_router_is_refused(router: Router, pool: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        extend(router, pool, make(NAMES))


def test_another_candidate_under_an_old_name_is_refused(router: Router) -> None:
    rows = rows_of((*NAMES, "new"))
    rows[0]["num_inference_steps"] = 9
    with pytest.raises(ConfigError, match="num_inference_steps"):
        extend_router(router, make(NAMES), None, pool=rows, labels={})


def test_all_anchors_are_read_and_some_of_the_rest() -> None:
    count = MOST_PROMPTS + 300
    cells = make_cells(
        prompt_ids=tuple(map(str, range(count))), prompts=tuple(map(str, range(count))), categories=None, candidates=("old", "new"),
        prompt=np.concatenate([np.arange(count), np.arange(40)]), candidate=np.repeat([0, 1], [count, 40]),
        score=np.random.default_rng(0).normal(size=count + 40), cost_ms=np.full(count + 40, np.nan),
    )  # fmt: skip
    rows = useful_prompts(cells, ["new", "unknown"])
    assert set(range(40)) <= set(rows)
    assert len(rows) == MOST_PROMPTS + 40


TWIN = {"denoiser": "base", "scheduler": "default", "num_inference_steps": 8, "guidance_scale": 3.0, "decoder": "vae"}
SETTINGS = {
    "short": {**TWIN, "num_inference_steps": 1},
    "middle": {**TWIN, "num_inference_steps": 4},
    "long": TWIN,
    "new": {**TWIN, "decoder": "tiny"},
}


def with_decoder(change: float, anchors: int, noise: float = 0.01) -> tuple[Router, Router]:
    """A router of three candidates, and the same with `new`: the long one's images with another decoder, which changes labels so much."""
    pool = [{"name": name, **settings} for name, settings in SETTINGS.items()]
    former = fit_router(make(NAMES), HashedEncoder(), None, pool=pool[:3], labels={"file": "a.csv"})
    cells, rng = make((*NAMES, "new"), {"new": anchors}), np.random.default_rng(2)
    changed = cells.mean.copy()
    changed[:, 3] = np.where(cells.count[:, 3] > 0, cells.mean[:, 2] + change + noise * rng.normal(size=len(cells)), np.nan)
    return former, extend_router(former, replace(cells, mean=changed), None, pool=pool, labels={"file": "b.csv"})


def test_another_decoder_loses_the_same_for_every_prompt() -> None:
    former, router = with_decoder(-0.05, anchors=60)
    mean, _ = columns(router, ("long", "new"), PROMPTS + HELD_OUT)
    np.testing.assert_allclose(mean[:, 1] - mean[:, 0], -0.05, atol=0.005)
    assert np.ptp(mean[:, 1] - mean[:, 0]) < 1e-12
    average = dict(zip([row["name"] for row in router.pool], router.average.mean, strict=True))
    assert average["new"] - average["long"] == pytest.approx(mean[0, 1] - mean[0, 0])
    assert columns(router, NAMES, PROMPTS)[0].tobytes() == columns(former, NAMES, PROMPTS)[0].tobytes()
    assert router.judge(HELD_OUT[0], None).basis.endswith("; new on 60 anchor prompts")


@pytest.mark.parametrize("change", [0.0, 0.03])
def test_a_score_that_does_not_see_the_decoder_is_no_reason_to_prefer_it(change: float) -> None:
    _, router = with_decoder(change, anchors=60)
    mean, _ = columns(router, ("long", "new"), PROMPTS + HELD_OUT)
    assert (mean[:, 1] < mean[:, 0]).all()
    assert (mean[:, 1] > mean[:, 0] - 0.005).all()


def test_few_pairs_are_estimated_from_all_candidates() -> None:
    _, router = with_decoder(-0.05, anchors=LEAST_PAIRS - 1)
    mean, _ = columns(router, ("long", "new"), PROMPTS)
    assert np.ptp(mean[:, 1] - mean[:, 0]) > 1e-6


def test_a_router_with_another_decoder_is_saved_and_read_again(tmp_path: Path) -> None:
    _, router = with_decoder(-0.05, anchors=60)
    router.save(tmp_path)
    again = Router.load(tmp_path)
    np.testing.assert_allclose(columns(again, ("new",))[0], columns(router, ("new",))[0], atol=1e-4)
    assert again.estimator.to_json() == router.estimator.to_json()


@pytest.mark.parametrize("change", [{"twin": 3}, {"twin": -1}, {"others": 4}, {"prompts": -1}, {"twin": 0.5}])
def test_a_saved_shift_that_does_not_fit_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    _, router = with_decoder(-0.05, anchors=60)
    settings, arrays = router.estimator.to_json(), router.estimator.arrays()
    settings["additions"][0] |= change
    with pytest.raises(ValueError, match=r"shift|additions|setting"):
        load_estimator(settings, arrays)


def test_candidates_with_as_many_anchors_are_named_together() -> None:
    names = [f"new-{number}" for number in range(5)]
    shift = Shift(np.array([-0.1]), np.array([0.01]), twin=0, others=1, prompts=40)
    base = Average(np.zeros(1), np.zeros(1), np.ones(1))
    extended = Extended(base, (*[shift] * 4, replace(shift, prompts=20)), tuple(range(6)))
    assert describe_added(extended, ["old", *names]) == "; new-0, new-1, new-2 and 1 more on 40 anchor prompts; new-4 on 20 anchor prompts"
