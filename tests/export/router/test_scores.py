"""Several scorers, and ratings with raters: cells that are what a careful reader of the table would make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from costroute_rt.error import ConfigError, LabelError
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.rater_level import remove_levels


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


def write_two_scorers(path: Path, *, prompts: int = 50, factor: float = 100.0) -> np.ndarray:
    """Scores 0 to 1, and others that are `factor` times as wide; -> float64[prompts, candidates, scorers], without noise."""
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(prompts, 3, 2)) * [1.0, factor] + [0.0, 7.0]
    rows = [f"p{p},text {p},{'abc'[c]},{float(values[p, c, 0])!r},{float(values[p, c, 1])!r}" for p in range(prompts) for c in range(3)]
    path.write_text("prompt_id,prompt,candidate,score,score_other\n" + "\n".join(rows), encoding="utf-8")
    return values


def test_each_scorer_counts_by_its_weight_whatever_its_units(path: Path) -> None:
    values = write_two_scorers(path)
    weighted = LabelTable.open(path, score={"score": 3, "score_other": 1}).cells()
    apart = values - values.mean(1, keepdims=True)
    unit = np.sqrt((apart**2).sum((0, 1)) / (50 * 2))
    expected = ((values - values.mean((0, 1))) / unit) @ [0.75, 0.25]
    np.testing.assert_allclose(weighted.mean, expected)
    write_two_scorers(path, factor=0.01)
    rescaled = LabelTable.open(path, score={"score": 3, "score_other": 1}).cells()
    np.testing.assert_allclose(rescaled.mean.argmax(1), weighted.mean.argmax(1))
    np.testing.assert_allclose(rescaled.mean, weighted.mean, atol=1e-9)


def test_a_scorer_of_weight_zero_does_not_count(path: Path) -> None:
    values = write_two_scorers(path)
    np.testing.assert_array_equal(LabelTable.open(path, score={"score": 1, "score_other": 0}).cells().mean, values[:, :, 0])


def test_another_table_is_standardised_alike(path: Path, tmp_path: Path) -> None:
    write_two_scorers(path)
    table, weights = LabelTable.open(path, score={"score": 1, "score_other": 1}), {"score": 1.0, "score_other": 1.0}
    few = tmp_path / "few.csv"
    few.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:7]), encoding="utf-8")
    alike = LabelTable.open(few, score=weights, scales=table.scales).cells()
    np.testing.assert_allclose(alike.mean, table.cells().mean[:2])
    assert np.abs(LabelTable.open(few, score=weights).cells().mean - alike.mean).max() > 0.1


def test_rows_without_all_scores_are_left_out_and_listed(path: Path) -> None:
    path.write_text("prompt,candidate,score,other\nx,a,1,1\nx,b,2,\ny,a,3,1\ny,b,1,5\nz,a,,\n", encoding="utf-8")
    table = LabelTable.open(path, score={"score": 1, "other": 1})
    assert len(table) == 3
    assert table.partly == (3,)


SCORES = {
    "unknown column": ({"score": 1, "clip": 1}, LabelError, "no column clip, only prompt, candidate, score, flat, never"),
    "weights of zero": ({"score": 0, "flat": 0}, ConfigError, "weights of which one is above 0"),
    "weight below zero": ({"score": 1, "flat": -1}, ConfigError, "where a lower score is better"),
    "weight that is not finite": ({"score": float("nan")}, ConfigError, "weights of 0 or more"),
    "no column": ({}, ConfigError, "weights of which one is above 0"),
    "constant scorer": ({"score": 1, "flat": 1}, LabelError, "column flat has the same score for all candidates of every prompt"),
    "never together": ({"score": 1, "never": 1}, LabelError, "no row has a value in all of the columns score, never; fit to fewer columns"),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_that_cannot_be_mixed_are_refused_with_the_remedy(path: Path, name: str) -> None:
    weights, error, problem = SCORES[name]
    path.write_text("prompt,candidate,score,flat,never\nx,a,1,5,\nx,b,2,5,\ny,a,3,6,\ny,b,1,6,\n", encoding="utf-8")
    with pytest.raises(error) as caught:
        LabelTable.open(path, score=weights)
    assert problem in str(caught.value)


def write_ratings(path: Path, *, prompts: int = 200, raters: int = 12, each: int = 3, level: float = 0.8) -> np.ndarray:
    """Ratings of three candidates by `each` of the raters, who differ in level; -> true qualities."""
    rng = np.random.default_rng(1)
    truth, levels = rng.normal(size=(prompts, 1)) + 0.4 * rng.normal(size=(prompts, 3)), level * rng.normal(size=raters)
    rows = [
        f"p{p},text {p},{'abc'[c]},r{r},{truth[p, c] + levels[r] + 0.3 * rng.normal()}"
        for p in range(prompts)
        for c in range(3)
        for r in rng.choice(raters, each, replace=False)
    ]
    path.write_text("prompt_id,prompt,candidate,rater,score\n" + "\n".join(rows), encoding="utf-8")
    return truth


@pytest.mark.parametrize("each", [1, 3])
def test_the_levels_of_raters_are_removed(path: Path, each: int) -> None:
    truth = write_ratings(path, each=each)
    cells = LabelTable.open(path).cells()
    wrong = cells.mean - truth
    wrong = (wrong - wrong.mean(1, keepdims=True)).std()
    assert wrong < 1.3 * 0.3 * np.sqrt(2 / 3 / each)  # nearly that of ratings by raters of equal level
    assert cells.has_noise == (each > 1)
    if each > 1:
        assert cells.variance.mean() == pytest.approx(0.3**2 / each, rel=0.1)
        assert cells.count.min() == cells.count.max() == each


def test_raters_who_do_not_differ_lose_nothing(path: Path) -> None:
    truth = write_ratings(path, level=0.0)
    plain = path.with_name("plain.csv")
    plain.write_text(path.read_text(encoding="utf-8").replace(",rater,", ",judge,"), encoding="utf-8")
    with pytest.raises(LabelError, match="a seed and each rating a rater"):
        LabelTable.open(plain)
    removed, named = LabelTable.open(path).cells(), LabelTable.open(plain, rater="judge").cells()
    np.testing.assert_array_equal(removed.mean, named.mean)
    assert np.abs(removed.mean - truth).std() < 0.3 / np.sqrt(3) * 1.1


def test_a_rater_with_one_rating_keeps_it(path: Path) -> None:
    path.write_text("prompt,candidate,rater,score\nx,a,one,1\nx,b,two,3\ny,a,three,2\ny,b,,5\n", encoding="utf-8")
    table = LabelTable.open(path)
    assert not table.has_levels
    assert table.cells().mean.tolist() == [[1, 3], [2, 5]]
    mixed = np.array([1.0, 3.0, 2.0, 5.0, 9.0, 2.0]), np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 1])
    levels = mixed[0] - remove_levels(*mixed, np.array([0, 0, 0, 0, 1, -1]))
    assert levels[4] == pytest.approx(levels[5])  # neither the one rating of rater 1 nor that of an unknown one is changed
    assert np.isfinite(levels).all()


def test_equal_ratings_have_no_levels(path: Path) -> None:
    path.write_text("prompt,candidate,rater,score\n" + "".join(f"{p},{c},{r},1\n" for p in "xy" for c in "ab" for r in "uv"))
    cells = LabelTable.open(path).cells()
    assert cells.mean.tolist() == [[1, 1], [1, 1]]
    assert not cells.has_noise


def test_seeds_and_raters_have_errors_of_their_own(path: Path) -> None:
    """Raters of one image share its luck: ten of them tell less of a candidate than ten images."""
    rng, rows = np.random.default_rng(2), []
    for p in range(1000):
        for s in range(2):
            image = rng.normal()
            rows += [f"p{p},t{p},a,{s},r{r},{image + 0.5 * rng.normal()}" for r in range(10)]
    path.write_text("prompt_id,prompt,candidate,seed,rater,score\n" + "\n".join(rows), encoding="utf-8")
    cells = LabelTable.open(path).cells()
    assert cells.variance.mean() == pytest.approx((1 + 0.25 / 10) / 2, rel=0.1)
    assert cells.mean.std() ** 2 == pytest.approx(cells.variance.mean(), rel=0.15)
    assert (cells.count == 20).all()
