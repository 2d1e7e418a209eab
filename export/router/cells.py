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
    image: IntArray | None = None,
) -> Cells:
    """The cells of a list of labels.

    prompt, candidate: int64[labels], positions in `prompts` and `candidates`.
    score, cost_ms: float64[labels]; a cost is NaN where unknown.
    image: int64[labels], such as the seed: labels of a cell with the same number are ratings of one image. By default every label has an
    image of its own. A cell is the mean of its images, each of which is the mean of its ratings.
    """
    shape = len(prompts), len(candidates)
    cell, cells = prompt * shape[1] + candidate, shape[0] * shape[1]
    number = np.arange(len(cell)) if image is None else np.unique(np.stack([cell, image]), axis=1, return_inverse=True)[1].ravel()
    ratings, place = np.bincount(number), np.zeros(number.max(initial=-1) + 1, dtype=np.int64)
    place[number] = cell  # the cell of each image
    own = np.bincount(number, score) / ratings
    count, images = np.bincount(cell, minlength=cells), np.bincount(place, minlength=cells)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, own, minlength=cells) / images

    def sums(where: IntArray, value: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(where, value, minlength=cells), dtype=np.float64).reshape(shape)

    spread = Spread(
        images=images.reshape(shape),
        ratings=count.reshape(shape),
        inverse=sums(place, 1 / ratings),
        between=sums(place, (own - mean[place]) ** 2),
        within=sums(cell, (score - own[number]) ** 2),
    )
    variance, has_noise = mean_variance(spread)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How the labels of each cell differ; all arrays are [prompts, candidates]."""

    images: IntArray
    ratings: IntArray
    """Of all images together."""
    inverse: FloatArray
    """Sum over the images of 1 / ratings."""
    between: FloatArray
    """Sum of squared deviations of the images from their mean."""
    within: FloatArray
    """Sum of squared deviations of the ratings from their image."""


def mean_variance(spread: Spread) -> tuple[FloatArray, bool]:
    """Variance of each cell's mean, float64[prompts, candidates], and whether labels have noise at all.

    Ratings vary around their image, and images around their cell: two variances, each pooled over a candidate's cells (analysis of variance
    of a nested design, Searle 1971, chapter 11). They are not the cell's own: a few labels are too few to estimate that, and for bounded
    scores it depends on the score itself, so weighting by it would bias every average. A candidate without repeated images or ratings gets
    the pooled variance of all. If there is none at all, or if repeated labels never differ, every cell gets 1.
    """
    images, known = spread.images, spread.images > 0
    freedom = np.maximum(images - 1, 0)
    error = _pooled(spread.within, spread.ratings - images)
    shared = np.divide(freedom, images, out=np.zeros(images.shape), where=known) * spread.inverse * error  # raters' part in `between`
    image = _pooled(np.maximum(spread.between.sum(0) - shared.sum(0), 0), freedom)
    found = image / np.maximum(images, 1) + error * spread.inverse / np.maximum(images, 1) ** 2
    if not found[known].any():
        return np.where(known, 1.0, np.nan), False
    return np.where(known, found, np.nan), True


def _pooled(squares: FloatArray, freedom: IntArray) -> FloatArray:
    """float64[candidates]: sums of squares per degree of freedom, over all candidates for one that has none; 0 if none has any.

    squares: float64[prompts, candidates] or float64[candidates]. freedom: int64[prompts, candidates].
    """
    own = squares.sum(0) if squares.ndim > 1 else squares
    total = freedom.sum(0)
    overall = own.sum() / max(int(total.sum()), 1)
    return np.asarray(np.where(total > 0, own / np.maximum(total, 1), overall), dtype=np.float64)


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
