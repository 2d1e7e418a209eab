"""Label tables: reading, refusals, and cells."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.engines.bundle.digest import sha256_file
from costroute_rt.error import LabelError
from costroute_rt.export.router.labels import Cells, LabelTable
from costroute_rt.routing.estimator.average import Average

HEADER = "prompt_id,prompt,candidate,seed,score,cost_ms,category\n"
ROWS = (
    "p0,a red house,fast,0,0.5,100,short\n"
    "p0,a red house,fast,1,0.7,110,short\n"
    "p0,a red house,slow,0,0.9,400,short\n"
    'p1,"a lake, at night",fast,0,0.2,105,long\n'
    'p1,"a lake, at night",slow,0,0.8,,long\n'
    'p1,"a lake, at night",slow,1,,410,long\n'
    "p2,A  red HOUSE,fast,0,0.4,100,short\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


def opened(path: Path, text: str, **options: str) -> LabelTable:
    path.write_text(text, encoding="utf-8", newline="")
    return LabelTable.open(path, **options)


def test_rows_with_a_score_are_read_as_they_are(path: Path) -> None:
    table = opened(path, HEADER + ROWS)
    assert len(table) == len(table.labels) == 6
    label = table.labels[3]
    assert (label.prompt_id, label.prompt, label.candidate, label.seed, label.score) == ("p1", "a lake, at night", "fast", 0, 0.2)
    assert label.cost_ms == 105
    assert label.extra == {"category": "long"}
    assert table.labels[4].cost_ms is None
    assert table.candidates == ("fast", "slow")
    assert table.seeds == (0, 1)
    assert table.sha256 == sha256_file(path)


def test_compressed_tables_and_byte_order_marks_are_read(path: Path) -> None:
    table = opened(path, HEADER + ROWS)
    packed = path.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + (HEADER + ROWS).replace("\n", "\r\n").encode()))
    assert LabelTable.open(packed).labels == table.labels


def test_a_table_lists_the_fingerprints_of_each_candidate(path: Path) -> None:
    table = opened(path, "score,candidate,prompt,fingerprint\n1,a,x,old\n,b,x,unscored\n0,b,x,\n1,a,y,new\n1,c,y,new\n")
    assert table.fingerprints == {"a": {"old", "new"}, "b": frozenset(), "c": {"new"}}
    assert opened(path, HEADER + ROWS).fingerprints == {"fast": frozenset(), "slow": frozenset()}


def test_three_columns_are_enough(path: Path) -> None:
    table = opened(path, "score,candidate,prompt\n1,a,x\n0,b,x\n")
    assert [(label.prompt_id, label.seed, label.cost_ms) for label in table.labels] == [("x", 0, None)] * 2
    cells = table.cells()
    assert not cells.has_cost
    assert not cells.has_noise
    assert (cells.cost_ms == 0).all()
    assert cells.variance.tolist() == [[1, 1]]
    assert cells.categories is None


def test_another_column_can_be_the_score(path: Path) -> None:
    table = opened(path, "prompt,candidate,score,score_clip\nx,a,0.1,0.2\nx,b,0.3,\n", score="score_clip")
    assert table.labels[0].score == 0.2
    assert len(table) == 1


BAD = {
    "empty file": ("", "the file is empty"),
    "no rows": (HEADER, "it has no labels"),
    "no score in any row": (HEADER + "p,x,a,0,,,\n", "no row has a value in column score"),
    "missing columns": ("prompt,score\nx,1\n", "no column candidate, only prompt, score"),
    "column twice": ("prompt,candidate,score,score\nx,a,1,2\n", "two columns have the same name"),
    "nan": (HEADER + ROWS + "p3,x,fast,0,nan,,\n", "line 9: score is nan, which is not finite"),
    "infinite": (HEADER + "p3,x,fast,0,-inf,,\n", "line 2: score is -inf"),
    "no number": (HEADER + "p3,x,fast,0,good,,\n", "line 2: score is 'good', which is not a number"),
    "line after a text of two lines": (HEADER + 'p3,"x\ny",fast,0,1,,\np4,z,fast,0,nan,,\n', "line 4: score is nan"),
    "negative cost": (HEADER + "p3,x,fast,0,1,-4,\n", "line 2: cost_ms is -4, below zero"),
    "cost no number": (HEADER + "p3,x,fast,0,1,soon,\n", "cost_ms is 'soon'"),
    "seed no number": (HEADER + "p3,x,fast,1.5,1,,\n", "seed is '1.5', which is not a whole number"),
    "seed below zero": (HEADER + "p3,x,fast,-1,1,,\n", "seed is -1"),
    "two texts": (HEADER + "p0,x,fast,0,1,,\np0,y,slow,0,1,,\n", "line 3: prompt_id 'p0' has two texts: 'x' and 'y'"),
    "duplicate": (HEADER + ROWS + "p0,a red house,fast,1,0.7,110,short\n", "lines 3 and 9 have the same label (fast, seed 1, 'p0')"),
    "cut off": (HEADER + "p0,x,fast,0,1,,\np0,x,fa", "line 3: it has 3 fields instead of 7; is it incomplete"),
    "open quote": (HEADER + 'p0,"x,fast,0,1,,\n', "it is not CSV"),
    "empty prompt": (HEADER + "p0, ,fast,0,1,,\n", "the prompt is empty"),
    "empty candidate": (HEADER + "p0,x,,0,1,,\n", "the candidate is empty"),
    "wrong column": ("prompt,candidate,score\n" + "".join(f"x,c{n},1\n" for n in range(1001)), "more than 1000 candidates"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_used_is_refused_with_the_line(path: Path, name: str) -> None:
    text, problem = BAD[name]
    with pytest.raises(LabelError) as caught:
        opened(path, text)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="it does not exist"):
        LabelTable.open(tmp_path / "none.csv")
    with pytest.raises(LabelError, match="cannot be read"):
        LabelTable.open(tmp_path)
    for name, data, problem in (
        ("latin.csv", b"prompt,candidate,score\n\xe9t\xe9,a,1\n", "UTF-8"),
        ("cut.csv.gz", gzip.compress((HEADER + ROWS).encode())[:-12], "not a complete .gz"),
        ("text.csv.gz", (HEADER + ROWS).encode(), "not a complete .gz"),
        ("binary.csv", bytes(range(1, 120)) * 20, "line"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LabelError, match=problem):
            LabelTable.open(tmp_path / name)


def test_a_category_belongs_to_a_prompt(path: Path) -> None:
    assert opened(path, HEADER + ROWS, category="category").cells().categories == ("short", "long", "short")
    with pytest.raises(LabelError, match="no column kind"):
        opened(path, HEADER + ROWS, category="kind")
    with pytest.raises(LabelError, match="in two categories"):
        opened(path, HEADER + "p0,x,fast,0,1,,short\np0,x,slow,0,1,,long\n", category="category")


def test_cells_are_means_over_seeds_with_missing_values(path: Path) -> None:
    cells = opened(path, HEADER + ROWS).cells()
    np.testing.assert_allclose(cells.mean, [[0.6, 0.9], [0.2, 0.8], [0.4, np.nan]])
    assert cells.count.tolist() == [[2, 1], [1, 1], [1, 0]]
    np.testing.assert_allclose(cells.cost_ms, [103.75, 400])
    assert cells.has_cost
    assert cells.has_noise
    assert cells.groups.tolist() == [0, 1, 0]
    assert (np.isnan(cells.variance) == np.isnan(cells.mean)).all()


def test_candidates_and_seeds_can_be_chosen(path: Path) -> None:
    table = opened(path, HEADER + ROWS)
    cells = table.cells(["slow", "fast"])
    np.testing.assert_allclose(cells.mean[:2], [[0.9, 0.6], [0.8, 0.2]])
    np.testing.assert_allclose(cells.cost_ms, [400, 103.75])
    assert table.cells(["slow"]).prompt_ids == ("p0", "p1")
    assert table.cells(seeds={1}).prompt_ids == ("p0",)
    with pytest.raises(LabelError, match="no labels of medium, only of fast, slow"):
        table.cells(["fast", "medium"])
    with pytest.raises(LabelError, match="no labels of"):
        table.cells(seeds=[7])


def test_selecting_prompts_keeps_their_groups(path: Path) -> None:
    cells = opened(path, HEADER + ROWS, category="category").cells()
    for chosen in (cells.select([2, 1]), cells.select(np.array([False, True, True])).select([1, 0])):
        assert chosen.prompt_ids == ("p2", "p1")
        assert chosen.categories == ("short", "long")
        assert chosen.groups.tolist() == [0, 1]
        np.testing.assert_allclose(chosen.mean, [[0.4, np.nan], [0.2, 0.8]])
    assert len(cells.select([])) == 0


def test_variance_is_the_candidates_pooled_one_over_the_number_of_labels(path: Path) -> None:
    """Bounded scores spread less near the bound; weights from that spread would bias the average upwards."""
    rng = np.random.default_rng(0)
    spread = {"quiet": 0.1, "loud": 0.5}
    rows = [
        f"p{p},text {p},{name},{s},{min(1, p % 5 + sd * rng.normal())}" for p in range(400) for name, sd in spread.items() for s in range(3)
    ]
    cells = opened(path, "prompt_id,prompt,candidate,seed,score\n" + "\n".join([*rows, "alone,text,quiet,0,0.5"])).cells()
    own = np.array([float(row.split(",")[4]) for row in rows]).reshape(400, 2, 3).var(2, ddof=1)
    np.testing.assert_allclose(cells.variance[:400], np.broadcast_to(own.mean(0) / 3, (400, 2)))
    assert cells.variance[400, 0] == pytest.approx(own[:, 0].mean())
    assert np.isnan(cells.variance[400, 1])
    assert Average.fit(cells.mean, cells.variance).mean[1] == pytest.approx(np.nanmean(cells.mean[:, 1]))


def test_seeds_that_never_differ_have_no_noise(path: Path) -> None:
    cells = opened(path, "prompt,candidate,seed,score\nx,a,0,1\nx,a,1,1\ny,a,0,2\n").cells()
    assert not cells.has_noise
    assert cells.variance.tolist() == [[1], [1]]


def make_related(path: Path, *, prompts: int, anchors: int, seeds: int = 2) -> tuple[Cells, np.ndarray]:
    """Three candidates of which the last is labelled for the first `anchors` prompts only; -> cells, true qualities."""
    rng = np.random.default_rng(3)
    ease = rng.uniform(0.2, 1, prompts)
    truth = np.stack([ease * 0.8, ease * 0.9 + 0.05, ease * 0.7 + 0.3 * rng.uniform(size=prompts) * 0.1], 1)
    rows = [
        f"p{p},text {p},{'abc'[c]},{s},{truth[p, c] + 0.02 * rng.normal():.6f}"
        for p in range(prompts)
        for c in range(3)
        for s in range(seeds)
        if c < 2 or p < anchors
    ]
    return opened(path, "prompt_id,prompt,candidate,seed,score\n" + "\n".join(rows)).cells(), truth


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_new_candidate_is_filled_in_from_its_anchors(path: Path, seeds: int) -> None:
    cells, truth = make_related(path, prompts=200, anchors=40, seeds=seeds)
    filled = cells.fill()
    assert not np.isnan(filled.mean).any()
    np.testing.assert_array_equal(filled.mean[~np.isnan(cells.mean)], cells.mean[~np.isnan(cells.mean)])
    error = filled.mean[40:, 2] - truth[40:, 2]
    assert np.sqrt((error**2).mean()) < 0.3 * truth[40:, 2].std()
    assert (filled.count == cells.count).all()
    if seeds == 2:
        assert 0.3 < np.mean(error**2) / filled.variance[40:, 2].mean() < 3
        assert filled.variance[40:, 2].min() > cells.variance[:40, 2].mean()
    else:
        assert ((filled.variance[40:, 2] > 1) & (filled.variance[40:, 2] < 1.5)).all()


def test_too_few_anchors_fill_nothing(path: Path) -> None:
    cells, _ = make_related(path, prompts=100, anchors=19)
    assert np.isnan(cells.fill().mean[19:, 2]).all()


def test_scattered_missing_cells_are_filled_from_the_known_ones(path: Path) -> None:
    cells, truth = make_related(path, prompts=300, anchors=300)
    holes = np.random.default_rng(1).uniform(size=cells.mean.shape) < 0.1
    holes[np.argmax(holes.all(1))] = True  # nothing to go by
    cells.mean[holes] = np.nan
    cells.variance[holes] = np.nan
    filled = cells.fill()
    fewest = np.isnan(cells.mean).sum(0).argmax()
    there = holes[:, fewest] & ~holes.all(1)
    assert there.sum() > 10
    assert np.sqrt(((filled.mean - truth)[there, fewest] ** 2).mean()) < 0.05
    assert np.isnan(filled.mean[holes.all(1)]).all()


def test_constant_labels_can_be_filled(path: Path) -> None:
    rows = [f"t{p},{c},1\n" for p in range(60) for c in "ab" if c == "a" or p < 30]
    cells = opened(path, "prompt,candidate,score\n" + "".join(rows)).cells().fill()
    np.testing.assert_allclose(cells.mean, 1)
    assert np.isfinite(cells.variance).all()


@pytest.mark.slow
def test_a_million_rows_are_read(path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=1_000_000).round(4).astype(str)
    with open(path, "w", encoding="utf-8") as file:
        file.write("prompt_id,prompt,candidate,seed,score,cost_ms\n")
        for row, score in enumerate(scores):
            prompt = row // 20
            file.write(f"p{prompt},a longer prompt that says number {prompt},m{row % 5},{row // 5 % 4},{score},123.4\n")
    start = time.process_time()
    cells = LabelTable.open(path).cells()
    print(f"a million labels: {time.process_time() - start:.1f} s of CPU time")  # noqa: T201
    assert cells.mean.shape == (50_000, 5)
