"""One score from several: a weighted mean, each score in units of its own differences between candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from costroute_rt.error import ConfigError, LabelError
from costroute_rt.routing.array import FloatArray, IntArray

Scores = str | Mapping[str, float]
"""A column of scores, or several columns with their weights."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What is subtracted from a score, and then what it is divided by."""

    center: float
    spread: float


def score_weights(scores: Scores) -> dict[str, float]:
    """The weight of each column; raises ConfigError for none, for weights below zero or not finite, and if all weights are zero."""
    weights = {scores: 1.0} if isinstance(scores, str) else {name: float(weight) for name, weight in scores.items()}
    shown = show_scores(weights)
    if not all(0 <= weight < np.inf for weight in weights.values()):
        raise ConfigError("score", shown, "weights of 0 or more; where a lower score is better, write its negative into the table")
    if not sum(weights.values()) > 0:
        raise ConfigError("score", shown, "weights of which one is above 0")
    return weights


def show_scores(scores: Scores) -> str:
    """The columns, with their weights if there are several."""
    if isinstance(scores, str):
        return scores
    return next(iter(scores)) if len(scores) == 1 else ", ".join(f"{name}={weight:g}" for name, weight in scores.items())


def measure_scales(path: Path, names: Sequence[str], values: FloatArray, prompt: IntArray) -> dict[str, Scale]:
    """The mean and the spread of each score.

    values: float64[labels, scores]. prompt: int64[labels]. The spread is the standard deviation around the prompt's mean, because choosing
    depends on differences between a prompt's candidates alone; around the mean of all labels if no prompt has two labels. Raises LabelError
    for a score without differences.
    """
    count = np.bincount(prompt)
    freedom = len(prompt) - int((count > 0).sum())
    found = {}
    for name, column in zip(names, values.T, strict=True):
        center = np.bincount(prompt, column)[prompt] / count[prompt] if freedom else column.mean()
        spread = float(np.sqrt(((column - center) ** 2).sum() / (freedom or len(column))))
        if not spread > 1e-12 * float(np.abs(column).max()):
            problem = f"column {name} has the same score for all candidates of every prompt, so it cannot tell them apart"
            raise LabelError(path, problem, "leave this column out of the scores")
        found[name] = Scale(float(column.mean()), spread)
    return found


def mix_scores(values: FloatArray, weights: Mapping[str, float], scales: Mapping[str, Scale]) -> FloatArray:
    """float64[labels]: the weighted mean of standardised scores; values: float64[labels, scores], in the order of `weights`."""
    mixed = np.zeros(len(values))
    for column, (name, weight) in zip(values.T, weights.items(), strict=True):
        mixed += weight * (column - scales[name].center) / scales[name].spread
    return np.asarray(mixed / sum(weights.values()))
