"""Pairwise votes as cells: the Bradley-Terry model of all votes, and one step from it for each prompt.

P(a is preferred to b) = sigma(slope * (q_a - q_b)) (Bradley and Terry 1952); a tie is half a win of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costroute_rt.routing.array import FloatArray, IntArray

RIDGE = 1.0
"""Weight of a normal prior of unit variance on each strength, which keeps a candidate that never lost finite."""
_STEPS, _TOLERANCE = 50, 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """Votes between candidates by number."""

    prompt: IntArray
    """int64[votes]"""
    first: IntArray
    second: IntArray
    result: FloatArray
    """float64[votes]: 1 where the first candidate won, 0 where the second did, 0.5 for a tie."""

    def __len__(self) -> int:
        return len(self.result)

    def select(self, rows: np.ndarray) -> Votes:
        return Votes(prompt=self.prompt[rows], first=self.first[rows], second=self.second[rows], result=self.result[rows])


def strengths(votes: Votes, candidates: int) -> FloatArray:
    """float64[candidates]: strengths in logits over all prompts, with mean 0; by Newton's method, with a ridge penalty."""
    pair, number = np.unique(votes.first * candidates + votes.second, return_inverse=True)
    first, second = pair // candidates, pair % candidates
    count, wins = np.bincount(number.ravel()), np.bincount(number.ravel(), votes.result)
    found = np.zeros(candidates)
    for _ in range(_STEPS):
        chance = _sigma(found[first] - found[second])
        wrong, weight = wins - count * chance, count * chance * (1 - chance)
        gradient = _sum(first, wrong, candidates) - _sum(second, wrong, candidates) - RIDGE * found
        hessian = np.diag(_sum(first, weight, candidates) + _sum(second, weight, candidates) + RIDGE)
        np.subtract.at(hessian, (first, second), weight)
        np.subtract.at(hessian, (second, first), weight)
        step = np.linalg.solve(hessian, gradient)
        found += np.clip(step, -2, 2)
        if np.abs(step).max() < _TOLERANCE:
            break
    return np.asarray(found - found.mean())


def fit_slope(difference: FloatArray, result: FloatArray) -> float:
    """Logits for each unit of score, by maximum likelihood with a weak prior; 0 or below if votes do not follow the scores.

    difference: float64[votes], score of the first candidate minus that of the second.
    """
    unit = float(np.sqrt((difference**2).mean())) if len(difference) else 0.0
    if not unit > 0:
        return 0.0
    scaled, slope = difference / unit, 0.0
    for _ in range(_STEPS):
        chance = _sigma(slope * scaled)
        step = ((result - chance) @ scaled - RIDGE * slope) / ((chance * (1 - chance)) @ scaled**2 + RIDGE)
        slope += float(np.clip(step, -2, 2))
        if abs(step) < _TOLERANCE:
            break
    return slope / unit


def vote_cells(votes: Votes, base: FloatArray, slope: float = 1.0) -> tuple[FloatArray, FloatArray, IntArray]:
    """Mean, variance and number of votes of each cell, [prompts, candidates]; NaN and 0 where there is no vote.

    base: float64[prompts, candidates], the scores to start from, in whose units the means are. One step of Fisher scoring, by the
    information of each cell's own votes. Because a vote moves both of its cells, each prompt's step has the length at which the quadratic
    model of its votes is best (1/2 for two candidates); variances are scaled alike.
    """
    shape = base.shape
    chance = _sigma(slope * (base[votes.prompt, votes.first] - base[votes.prompt, votes.second]))
    wrong, weight = slope * (votes.result - chance), slope**2 * chance * (1 - chance)
    size = base.size
    cells = [votes.prompt * shape[1] + side for side in (votes.first, votes.second)]
    score = (_sum(cells[0], wrong, size) - _sum(cells[1], wrong, size)).reshape(shape)
    information = (_sum(cells[0], weight, size) + _sum(cells[1], weight, size)).reshape(shape)
    count = (np.bincount(cells[0], minlength=size) + np.bincount(cells[1], minlength=size)).reshape(shape)
    known = count > 0
    information = np.where(known, np.maximum(information, 1e-300), np.nan)
    step = np.nan_to_num(score / information)
    curvature = np.bincount(votes.prompt, weight * (step[votes.prompt, votes.first] - step[votes.prompt, votes.second]) ** 2, shape[0])
    length = np.divide((step * score).sum(1), curvature, out=np.full(shape[0], 0.5), where=curvature > 0)[:, None]
    return np.where(known, base + length * step, np.nan), length / information, count.astype(np.int64)


def connected(votes: Votes, candidates: int) -> IntArray:
    """int64[candidates]: a number for each group of candidates that votes connect, directly or through others."""
    group = np.arange(candidates)
    for _ in range(candidates):
        before = group.copy()
        for one, other in ((votes.first, votes.second), (votes.second, votes.first)):
            np.minimum.at(group, one, group[other])
        if (group == before).all():
            break
    return group


def _sigma(value: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -30, 30))))


def _sum(where: IntArray, value: FloatArray, size: int) -> FloatArray:
    return np.asarray(np.bincount(where, value, minlength=size), dtype=np.float64)
