"""Pairwise votes: reading, refusals, and cells alone or with scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from costroute_rt.error import ConfigError, LabelError
from costroute_rt.export.router.bradley_terry import Votes, strengths, vote_cells
from costroute_rt.export.router.label_set import LabelSet
from costroute_rt.export.router.vote_table import VoteTable

HEADER = "prompt_id,prompt,candidate_a,candidate_b,winner\n"
NAMES = ("one", "two", "three")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "votes.csv"


def opened(path: Path, text: str) -> VoteTable:
    path.write_text(text, encoding="utf-8")
    return VoteTable.open(path)


def sigma(value: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-value)))


def make_votes(path: Path, *, prompts: int = 300, each: int = 12, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """Votes by the Bradley-Terry model; -> true strengths in logits, float64[prompts, 3]."""
    rng = np.random.default_rng(seed)
    truth = np.array([0.0, 0.5, 1.0]) + spread * rng.normal(size=(prompts, 3))
    rows = []
    for p in range(prompts):
        for _ in range(each):
            a, b = rng.permutation(3)[:2]
            rows.append(f"p{p},text {p},{NAMES[a]},{NAMES[b]},{'a' if rng.uniform() < sigma(truth[p, a] - truth[p, b]) else 'b'}")
    path.write_text(HEADER + "\n".join(rows), encoding="utf-8")
    return truth


def test_names_words_and_ties_are_winners(path: Path) -> None:
    rows = "p,x,m,n,m\np,x,m,n,n\np,x,n,m,a\np,x,m,n,B\np,x,m,n,tie\np,x,m,n,\np,x,m,n,Tie (bothbad)\np,x,m,n,model_a\n"
    table = opened(path, HEADER + rows)
    assert table.result.tolist() == [1, 0, 1, 0, 0.5, 0.5, 1]
    assert [table.candidates[row] for row in table.first] == ["m", "m", "n", "m", "m", "m", "m"]


def test_tables_of_public_arenas_are_read(path: Path) -> None:
    table = opened(path, "question;prompt;model_a;model_b;winner;judge\n1;a lake;x;y;model_b;me\n2;a lake;x;y;tie;you\n")
    assert (table.prompts, table.candidates, table.result.tolist()) == (("a lake",), ("x", "y"), [0, 0.5])


BAD = {
    "no such candidate": (HEADER + "p,x,m,n,o\n", "line 2: winner is 'o', which is neither 'm' nor 'n'"),
    "itself": (HEADER + "p,x,m,m,m\n", "line 2: it is a vote of 'm' against itself"),
    "no candidate": (HEADER + "p,x,m,,m\n", "a candidate is empty"),
    "no prompt": (HEADER + "p, ,m,n,m\n", "the prompt is empty"),
    "two texts": (HEADER + "p,x,m,n,m\np,y,m,n,m\n", "line 3: prompt_id 'p' has two texts"),
    "ties alone": (HEADER + "p,x,m,n,tie\nq,y,m,n,tie\n", "all of its votes are ties, which tell no candidates apart; collect votes with"),
    "no votes": (HEADER + "p,x,m,n,\n", "it has no votes: no row has a winner"),
    "no winner column": ("prompt,candidate_a,candidate_b\nx,m,n\n", "it has no column winner"),
    "scores": ("prompt,candidate,score\nx,m,1\n", "it looks like a table of scores: give it as labels"),
    "empty": ("", "the file is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_votes_that_cannot_be_used_are_refused_with_the_line(path: Path, name: str) -> None:
    text, problem = BAD[name]
    with pytest.raises(LabelError) as caught:
        opened(path, text)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_strengths_are_those_of_the_model() -> None:
    rng, truth = np.random.default_rng(0), np.array([0.0, 0.3, 1.5, -2.0])
    first = rng.integers(0, 4, 20_000)
    second = (first + rng.integers(1, 4, 20_000)) % 4
    result = (rng.uniform(size=20_000) < sigma(truth[first] - truth[second])).astype(float)
    votes = Votes(prompt=np.zeros(20_000, dtype=np.int64), first=first, second=second, result=result)
    np.testing.assert_allclose(strengths(votes, 4), truth - truth.mean(), atol=0.08)


def test_a_candidate_that_always_wins_stays_finite(path: Path) -> None:
    cells = LabelSet(None, opened(path, HEADER + "".join(f"p{p},t{p},m,n,m\n" for p in range(500)))).cells()
    assert np.isfinite(cells.mean).all()
    assert np.isfinite(cells.variance).all()
    assert (cells.mean[:, 0] > cells.mean[:, 1]).all()


def test_one_vote_moves_its_two_cells_by_one_fisher_step() -> None:
    votes = Votes(prompt=np.array([0]), first=np.array([0]), second=np.array([1]), result=np.array([1.0]))
    base = np.array([[0.4, -0.2, 0.0]])
    chance = sigma(np.array(0.6))
    mean, variance, count = vote_cells(votes, base)
    np.testing.assert_allclose(mean[0, :2], [0.4 + 0.5 / chance, -0.2 - 0.5 / chance])  # so that their difference moves by 1 / chance
    np.testing.assert_allclose(variance[0, :2], 0.5 / (chance * (1 - chance)))
    assert np.isnan(mean[0, 2])
    assert count.tolist() == [[1, 1, 0]]


def test_cells_of_votes_follow_the_prompts(path: Path) -> None:
    truth = make_votes(path, spread=0.5, each=60)
    cells = LabelSet.open(None, path).cells(NAMES)
    assert not cells.has_cost
    assert cells.has_noise
    apart, found = truth - truth.mean(1, keepdims=True), cells.mean - cells.mean.mean(1, keepdims=True)
    assert np.corrcoef(apart.ravel(), found.ravel())[0, 1] > 0.85
    assert ((cells.mean - cells.mean.mean(1, keepdims=True) - apart) ** 2).mean() < 2 * cells.variance.mean()


def test_votes_between_other_candidates_are_left_out(path: Path) -> None:
    votes = opened(path, HEADER + "p,x,m,n,m\nq,y,m,o,o\n")
    cells = LabelSet(None, votes).cells(["n", "m"])
    assert cells.prompt_ids == ("p",)
    assert cells.mean[0, 1] > cells.mean[0, 0]


def test_candidates_that_no_votes_connect_are_refused(path: Path) -> None:
    votes = LabelSet(None, opened(path, HEADER + "p,x,m,n,m\nq,y,o,r,o\n"))
    with pytest.raises(LabelError, match="no vote compares one of o, r with one of the other candidates; collect votes between them"):
        votes.cells()
    with pytest.raises(LabelError, match="no vote compares m, o with another of these candidates"):
        votes.cells(["m", "o"])
    with pytest.raises(LabelError, match="no labels or votes of s, only of m, n, o, r"):
        votes.cells(["m", "s"])
    with pytest.raises(ConfigError):
        LabelSet.open(None)


def write_scores(path: Path, truth: np.ndarray, *, noise: float, columns: tuple[int, ...] = (0, 1, 2), seeds: int = 2) -> Path:
    """Scores in other units than the votes: 3 logits are 0.3, and every prompt has a level of its own."""
    rng, scores = np.random.default_rng(5), path.with_name("labels.csv")
    level = rng.normal(size=len(truth))
    rows = [
        f"p{p},text {p},{NAMES[c]},{s},{level[p] + 0.1 * truth[p, c] + noise * rng.normal()}"
        for p in range(len(truth))
        for c in columns
        for s in range(seeds)
    ]
    scores.write_text("prompt_id,prompt,candidate,seed,score\n" + "\n".join(rows), encoding="utf-8")
    return scores


def wrong(mean: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared error of differences between candidates."""
    error = mean - truth
    return float(((error - error.mean(1, keepdims=True)) ** 2).mean())


@pytest.mark.parametrize("seeds", [1, 2])
def test_votes_and_scores_together_are_better_than_either(path: Path, seeds: int) -> None:
    truth = make_votes(path, each=30)
    scores = write_scores(path, truth, noise=0.1 * np.sqrt(seeds), seeds=seeds)
    both, alone, votes = (LabelSet.open(*files).cells(NAMES) for files in ((scores, path), (scores,), (None, path)))
    assert both.prompt_ids == alone.prompt_ids
    assert both.mean.shape == (300, 3)
    assert wrong(both.mean, 0.1 * truth) < 0.9 * min(wrong(alone.mean, 0.1 * truth), wrong(0.1 * votes.mean, 0.1 * truth))
    assert (both.count == alone.count + votes.count).all()


def test_a_candidate_known_by_votes_alone_gets_the_units_of_the_scores(path: Path) -> None:
    truth = make_votes(path, each=30)
    scores = write_scores(path, truth, noise=0.05, columns=(0, 1))
    cells = LabelSet.open(scores, path).cells(NAMES)
    difference = (cells.mean[:, 2] - cells.mean[:, 1]).mean()
    assert difference == pytest.approx(0.05, abs=0.03)


def test_prompts_are_matched_by_id_or_text(path: Path) -> None:
    scores = path.with_name("labels.csv")
    scores.write_text("prompt_id,prompt,candidate,score\np,x,m,1\np,x,n,0\nq,y,m,3\nq,y,n,2.5\n", encoding="utf-8")
    path.write_text("prompt,candidate_a,candidate_b,winner\nx,m,n,m\nz,m,n,m\n", encoding="utf-8")
    cells = LabelSet.open(scores, path).cells()
    assert cells.prompt_ids == ("p", "q", "z")
    assert cells.count.tolist() == [[2, 2], [1, 1], [1, 1]]
    path.write_text(HEADER + "p,other,m,n,m\n", encoding="utf-8")
    with pytest.raises(LabelError, match="prompt_id 'p' is 'other', but in the table of scores it is 'x'; give different prompts"):
        LabelSet.open(scores, path).cells()


def test_votes_against_the_scores_are_refused(path: Path) -> None:
    scores = path.with_name("labels.csv")
    scores.write_text("prompt,candidate,score\n" + "".join(f"t{p},m,1\nt{p},n,{p / 9}\n" for p in range(9)), encoding="utf-8")
    path.write_text(HEADER + "".join(f"t{p},t{p},m,n,n\n" for p in range(9)), encoding="utf-8")
    with pytest.raises(LabelError, match=r"its 9 votes contradict the scores: .*; fit to the votes or to the scores alone"):
        LabelSet.open(scores, path).cells()
    scores.write_text("prompt,candidate,score\n" + "".join(f"t{p},m,1\nt{p},n,1\n" for p in range(9)), encoding="utf-8")
    with pytest.raises(LabelError, match="the scores of its candidates do not differ"):
        LabelSet.open(scores, path).cells()
