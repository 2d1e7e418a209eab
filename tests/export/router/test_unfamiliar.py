"""Kinds of prompts, and what leaving them out shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costroute_rt.export.router.cells import Cells, make_cells
from costroute_rt.export.router.fit import fit_router
from costroute_rt.export.router.kinds import CLUSTERS, MOST_KINDS, cluster, find_kinds
from costroute_rt.export.router.shrinkage import calibration_slope
from costroute_rt.export.router.unfamiliar import Apart, measure_unfamiliar
from costroute_rt.routing.array import FloatArray, IntArray
from costroute_rt.routing.prompt_encoder import HashedEncoder
from costroute_rt.routing.prompt_tag import tag_prompts
from costroute_rt.routing.router import POOL_FIELDS

THINGS = ("cat", "dog", "house", "boat", "tree", "lamp", "cup", "chair", "bird", "fish", "car", "plate")
PATTERNS = ("a {a} in {c}", "{n} {a}s", "no {a} without {b}", "a {a} to the left of a {b}", "half of a {a}", 'a sign that says "{a}"')
POOL = tuple(dict.fromkeys(POOL_FIELDS, 1.0) | {"name": name} for name in ("first", "second"))


def make_prompts() -> tuple[tuple[str, ...], IntArray]:
    """144 prompts, and which of six kinds each is of."""
    texts, kinds = [], []
    for kind, pattern in enumerate(PATTERNS):
        for index, thing in enumerate(THINGS):
            for number, other in ((3, "lamp"), (7, "boat")):
                text = pattern.format(a=thing, b=other, n=number + index % 2, c=("red", "blue")[index % 2])
                texts.append(text if pattern.count("{") > 1 else f"{text} and a {other}")
                kinds.append(kind)
    return tuple(texts), np.array(kinds)


def make(effect: FloatArray, *, has_categories: bool = True, noise: float = 0.02) -> tuple[Cells, IntArray]:
    """Labels of two candidates that differ by `effect`, float64[prompts]."""
    prompts, kinds = make_prompts()
    rng = np.random.default_rng(0)
    score = 0.5 + np.stack([effect / 2, -effect / 2], axis=1) + noise * rng.normal(size=(len(prompts), 2))
    cells = make_cells(
        prompt_ids=tuple(map(str, range(len(prompts)))),
        prompts=prompts,
        categories=tuple(f"kind-{kind}" for kind in kinds) if has_categories else None,
        candidates=("first", "second"),
        prompt=np.repeat(np.arange(len(prompts)), 2),
        candidate=np.tile([0, 1], len(prompts)),
        score=score.ravel(),
        cost_ms=np.full(score.size, np.nan),
    )
    return cells, kinds


def by_thing() -> FloatArray:
    """The same effect of a thing in every kind of prompt."""
    prompts, _ = make_prompts()
    return np.array([0.2 if any(word in prompt for word in ("cat", "dog", "bird", "fish")) else -0.1 for prompt in prompts])


def by_kind() -> FloatArray:
    """An effect of a thing that has another sign in every second kind."""
    _, kinds = make_prompts()
    return by_thing() * np.where(kinds % 2, -1, 1)


def test_kinds_are_the_categories() -> None:
    cells, kinds = make(by_thing())
    np.testing.assert_array_equal(find_kinds(cells), kinds)


def test_without_categories_kinds_are_clusters_of_tags() -> None:
    cells, kinds = make(by_thing(), has_categories=False)
    found = find_kinds(cells)
    assert found is not None
    assert 4 <= len(np.unique(found)) <= CLUSTERS
    purity = sum(np.bincount(kinds[found == number]).max() for number in np.unique(found)) / len(kinds)
    assert purity > 0.8


def test_two_categories_are_too_few_to_show_the_error_between_kinds() -> None:
    cells, _ = make(by_thing())
    halves = replace(cells, categories=tuple("ab"[index % 2] for index in range(len(cells))))
    without = find_kinds(replace(cells, categories=None))
    np.testing.assert_array_equal(find_kinds(halves), without)


def test_many_categories_are_left_out_together() -> None:
    cells, _ = make(by_thing())
    found = find_kinds(replace(cells, categories=tuple(f"{index:03d}" for index in range(len(cells)))))
    assert found is not None
    assert len(np.unique(found)) == MOST_KINDS


def test_equal_prompts_have_no_kinds() -> None:
    cells, _ = make(by_thing(), has_categories=False)
    assert find_kinds(replace(cells, prompts=("a cup",) * len(cells))) is None
    assert len(np.unique(cluster(tag_prompts(["a cup"] * 5), 3))) == 1


def test_a_prompt_counts_in_the_slope_by_its_share() -> None:
    cells, kinds = make(by_thing(), noise=0.0)
    average = np.full_like(cells.mean, 0.5)
    right, wrong = cells.mean, 1 - cells.mean
    predicted = np.where(kinds[:, None] < 3, right, wrong)
    assert calibration_slope(cells, predicted, average, kinds, (kinds < 3).astype(float)).value == pytest.approx(1)
    assert calibration_slope(cells, predicted, average, kinds, (kinds >= 3).astype(float)).value == pytest.approx(-1)
    assert calibration_slope(cells, predicted, average, kinds, np.zeros(len(cells))).factor == 0


def test_the_slope_far_from_the_labels_is_that_of_kinds_left_out() -> None:
    cells, kinds = make(by_thing())
    average = np.full_like(cells.mean, 0.5)
    predicted = 0.5 + 2 * (cells.mean - 0.5)
    found = measure_unfamiliar(cells, Apart(kinds=kinds, estimate=predicted, average=average))
    assert found is not None
    assert found.kinds == len(PATTERNS)
    assert found.slope.value == pytest.approx(0.5)
    assert 0 <= found.familiarity.near < found.familiarity.far
    assert measure_unfamiliar(cells, None) is None


@pytest.mark.parametrize("has_categories", [True, False])
def test_what_other_kinds_do_not_share_is_not_believed_on_an_unfamiliar_kind(has_categories: bool) -> None:
    cells, kinds = make(by_kind(), has_categories=has_categories)
    known = kinds < 5
    router = fit_router(cells.select(known), HashedEncoder(512), None, pool=POOL, labels={})
    assert router.familiarity is not None
    assert router.shrinkage.far < 0.2 < router.shrinkage.near
    unfamiliar = [prompt for prompt, is_known in zip(cells.prompts, known, strict=True) if not is_known]
    away = np.abs(router.estimate(unfamiliar, None)[0] - router.average.mean)
    own = np.abs(router.estimator.estimate(router.encode(unfamiliar, None))[0] - router.average.mean)
    assert away.mean() < 0.25 * own.mean()
    assert router.estimate(cells.prompts[:20], None)[2].mean() > 0.8


def test_what_all_kinds_share_is_believed_on_an_unfamiliar_kind() -> None:
    cells, kinds = make(by_thing())
    router = fit_router(cells.select(kinds < 5), HashedEncoder(512), None, pool=POOL, labels={})
    assert router.shrinkage.far > 0.4
    assert "of another kind" in router.reason
    assert router.record["unfamiliar"]["kinds"] == 5
