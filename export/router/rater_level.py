"""The levels of raters: how much higher or lower than others each one rates, whatever the image."""

from __future__ import annotations

import numpy as np

from costroute_rt.routing.array import FloatArray, IntArray

_ROUNDS, _TOLERANCE = 200, 1e-4


def remove_levels(score: FloatArray, prompt: IntArray, candidate: IntArray, rater: IntArray) -> FloatArray:
    """float64[labels]: the scores without the levels of their raters.

    score: float64[labels]. prompt, candidate, rater: int64[labels]; rater -1 is unknown and has no level. The mean does not change.
    """
    return np.asarray(score - rater_levels(score, prompt, candidate, rater))


def rater_levels(score: FloatArray, prompt: IntArray, candidate: IntArray, rater: IntArray) -> FloatArray:
    """float64[labels]: the level of each label's rater.

    The model is score = candidate + prompt + cell + rater + error, where all but the candidate are random effects. Levels are best linear
    predictors: those of raters with few labels are shrunk to 0, and raters with one label have none. Effects and variances are found by
    coordinate ascent on the evidence (variational EM; Bishop 2006, section 10.1). All zeros if no rater has two labels, or if there is one
    rater only.
    """
    named = (rater >= 0) & (np.bincount(rater + 1)[rater + 1] > 1)
    if len(np.unique(rater[rater >= 0])) < 2 or not named.any():
        return np.zeros(len(score))
    rater = np.where(named, rater + 1, 0)
    per_candidate = np.bincount(candidate)
    cell = np.unique(prompt * len(per_candidate) + candidate, return_inverse=True)[1].ravel()
    effects = [_Effect(prompt), _Effect(cell), _Effect(rater, known=named)]
    start = _fixed(score, candidate)
    error = float(((score - start) ** 2).mean()) / 2
    for effect in effects:
        effect.variance = error / 3
    for _ in range(_ROUNDS if error > 0 else 0):
        before = effects[-1].at_labels()
        for effect in effects:
            rest = score - sum(other.at_labels() for other in effects if other is not effect)
            effect.update(rest - _fixed(rest - effect.at_labels(), candidate), error)
        rest = score - sum(effect.at_labels() for effect in effects)
        left = (rest - _fixed(rest, candidate)) ** 2 + sum(effect.doubt_at_labels() for effect in effects)
        error = max(float(left.mean()), 1e-12 * float(score.var()))
        if np.abs(effects[-1].at_labels() - before).max() < _TOLERANCE * np.sqrt(error):
            break
    levels = effects[-1].at_labels()
    return np.asarray(levels - levels.mean())


class _Effect:
    """A random effect with one value for each group of labels; its variance is re-estimated with it."""

    def __init__(self, group: IntArray, known: np.ndarray | None = None) -> None:
        """group: int64[labels]. known: labels that have the effect; it is 0 for others."""
        self._group, self._known = group, np.ones(len(group)) if known is None else known.astype(np.float64)
        self._count = np.bincount(group, self._known)
        self._value, self._doubt = np.zeros(len(self._count)), np.zeros(len(self._count))
        self.variance = 0.0

    def update(self, rest: FloatArray, error: float) -> None:
        """rest: the scores without all other effects. error: variance of a label around the effects."""
        precision = self._count / error + 1 / max(self.variance, 1e-300)
        self._value = np.bincount(self._group, rest * self._known, minlength=len(self._count)) / error / precision
        self._doubt = np.where(self._count > 0, 1 / precision, 0.0)
        self.variance = float((self._value**2 + self._doubt).sum() / max((self._count > 0).sum(), 1))

    def at_labels(self) -> FloatArray:
        return np.asarray(self._value[self._group] * self._known)

    def doubt_at_labels(self) -> FloatArray:
        return np.asarray(self._doubt[self._group] * self._known)


def _fixed(rest: FloatArray, candidate: IntArray) -> FloatArray:
    """float64[labels]: the mean of each label's candidate."""
    return np.asarray((np.bincount(candidate, rest) / np.maximum(np.bincount(candidate), 1))[candidate])
