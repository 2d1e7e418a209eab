"""Labels as a matrix of prompts x candidates: means over seeds, their variance, and missing values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from costroute_rt.routing.array import FloatArray, IntArray

LEAST_ANCHORS = 20
"""A candidate with fewer labelled prompts than this is not filled in."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
"""Ridge penalties tried by `fill`, in units of the predictors' mean sum of squares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """One score for each prompt and candidate, or none."""

    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    categories: tuple[str, ...] | None
    candidates: tuple[str, ...]
    mean: FloatArray
    """float64[prompts, candidates]; NaN where missing."""
    variance: FloatArray
    """float64[prompts, candidates]: squared standard error of `mean`, NaN where missing; 1 everywhere if `has_noise` is false."""
    count: IntArray
    """int64[prompts, candidates]: number of labels; 0 where missing or filled in."""
    cost_ms: FloatArray
    """float64[candidates]: mean milliseconds of an image; 0 where unknown."""
    has_cost: bool
    """Whether every candidate has a cost."""
    has_noise: bool
    """Whether the spread between seeds is known and above zero."""
    groups: IntArray
    """int64[prompts]: prompts with the same text, apart from letter case and spaces, share a number."""

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, index: npt.ArrayLike) -> Cells:
        """The prompts at these positions, or where a mask is true; costs and group numbers do not change."""
        rows = np.arange(len(self))[np.asarray(index, dtype=None if np.size(index) else np.int64)]
        return replace(
            self,
            prompt_ids=tuple(self.prompt_ids[row] for row in rows),
            prompts=tuple(self.prompts[row] for row in rows),
            categories=None if self.categories is None else tuple(self.categories[row] for row in rows),
            mean=self.mean[rows],
            variance=self.variance[rows],
            count=self.count[rows],
            groups=self.groups[rows],
        )

    def fill(self) -> Cells:
        """The cells with missing ones predicted from other candidates' labels of the prompt, for a candidate labelled on anchors only.

        A candidate with at least LEAST_ANCHORS labelled prompts is predicted by ridge regression on the candidates that have as many or
        more, fitted on prompts labelled for both. The variance of a filled cell is the leave-one-out error (if the noise of labels is
        unknown: 1 plus that error's share of the candidate's variance). Cells that cannot be predicted stay missing; no count changes.
        """
        known = ~np.isnan(self.mean)
        mean, variance, labelled = self.mean.copy(), self.variance.copy(), known.sum(0)
        for column in np.flatnonzero((labelled >= LEAST_ANCHORS) & (labelled < len(self))):
            helpers = np.flatnonzero((labelled >= labelled[column]) & (np.arange(known.shape[1]) != column))
            missing = np.flatnonzero(~known[:, column])
            patterns, member = np.unique(known[np.ix_(missing, helpers)], axis=0, return_inverse=True)
            for number, pattern in enumerate(patterns):
                names, rows = helpers[pattern], missing[np.ravel(member) == number]
                train = known[:, column] & known[:, names].all(1)
                if not len(names) or train.sum() < LEAST_ANCHORS:
                    continue
                labels = self.mean[train, column]
                found, error = ridge_predict(self.mean[np.ix_(train, names)], labels, self.mean[np.ix_(rows, names)])
                mean[rows, column] = found
                variance[rows, column] = error if self.has_noise else 1 + min(1.0, error / max(float(labels.var()), 1e-300))
        return replace(self, mean=mean, variance=variance)


def make_cells(
    *,
    prompt_ids: tuple[str, ...],
    prompts: tuple[str, ...],
    categories: tuple[str, ...] | None,
    candidates: tuple[str, ...],
    prompt: IntArray,
    candidate: IntArray,
    score: FloatArray,
    cost_ms: FloatArray,
) -> Cells:
    """The cells of a list of labels.

    prompt, candidate: int64[labels], positions in `prompts` and `candidates`.
    score, cost_ms: float64[labels]; a cost is NaN where unknown.
    """
    shape = len(prompts), len(candidates)
    cell, cells = prompt * shape[1] + candidate, shape[0] * shape[1]
    count = np.bincount(cell, minlength=cells)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(cell, score, minlength=cells) / count
    squares: FloatArray = np.bincount(cell, (score - mean[cell]) ** 2, minlength=cells).astype(np.float64)
    variance, has_noise = mean_variance(count.reshape(shape), squares.reshape(shape))
    timed = np.isfinite(cost_ms)
    times = np.bincount(candidate[timed], minlength=shape[1])
    cost = np.bincount(candidate[timed], cost_ms[timed], minlength=shape[1]) / np.maximum(times, 1)
    return Cells(
        prompt_ids=prompt_ids,
        prompts=prompts,
        categories=categories,
        candidates=candidates,
        mean=mean.reshape(shape),
        variance=variance,
        count=count.reshape(shape).astype(np.int64),
        cost_ms=cost,
        has_cost=bool((times > 0).all()),
        has_noise=has_noise,
        groups=group_texts(prompts),
    )


def mean_variance(count: IntArray, squares: FloatArray) -> tuple[FloatArray, bool]:
    """Variance of each cell's mean, float64[prompts, candidates], and whether labels have noise at all.

    count: labels of each cell. squares: sum of squared deviations from the cell's mean.
    The variance is the candidate's pooled variance over the number of labels. It is not the cell's own: a few labels are too few to
    estimate that, and for bounded scores it depends on the score itself, so weighting by it would bias every average. A candidate without
    a cell of two seeds gets the pooled variance of all. If there is none at all, or if seeds never differ, every cell gets 1.
    """
    freedom = np.maximum(count - 1, 0)
    if not freedom.sum() or not squares.sum() > 0:
        return np.where(count > 0, 1.0, np.nan), False
    overall = squares.sum() / freedom.sum()
    pooled = np.where(freedom.sum(0) > 0, squares.sum(0) / np.maximum(freedom.sum(0), 1), overall)
    return np.where(count > 0, pooled / np.maximum(count, 1), np.nan), True


def group_texts(prompts: tuple[str, ...]) -> IntArray:
    """int64[prompts]: a number for each text, the same for texts that differ in letter case and spaces only."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(" ".join(text.casefold().split()), len(numbers)) for text in prompts], dtype=np.int64)


def ridge_predict(train: FloatArray, labels: FloatArray, wanted: FloatArray) -> tuple[FloatArray, float]:
    """Predictions of a ridge regression with an intercept, and its leave-one-out error, which chooses the penalty (closed form).

    train: float64[n, predictors]. labels: float64[n]. wanted: float64[m, predictors].
    """
    centre, offset = train.mean(0), labels.mean()
    left, singular, right = np.linalg.svd(train - centre, full_matrices=False)
    energy = max(float((singular**2).mean()), 1e-300)
    projected = left.T @ (labels - offset)
    best, weights = np.inf, np.zeros(train.shape[1])
    for ridge in RIDGES:
        shrink = singular**2 / (singular**2 + ridge * energy)
        leverage = 1 / len(labels) + (left**2 * shrink).sum(1)
        error = float(((((labels - offset) - left @ (shrink * projected)) / np.maximum(1 - leverage, 1e-9)) ** 2).mean())
        if error < best:
            best, weights = error, right.T @ (singular / (singular**2 + ridge * energy) * projected)
    return offset + (wanted - centre) @ weights, best
