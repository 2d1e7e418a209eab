"""Measuring choices on tables with missing cells, as if every prompt were labelled for every candidate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costroute_rt.export.router.cells import Cells
from costroute_rt.routing.array import FloatArray


def unbiased_labels(cells: Cells) -> FloatArray:
    """float64[prompts, candidates]: the labels; where cells are missing at random, numbers whose means over prompts are right.

        z = g + known / share * (label - g)

    This is the doubly robust estimate (Robins, Rotnitzky and Zhao 1994): g is a guess from the prompt's other labels, `share` the
    candidate's share of labelled prompts. A single z may be far from what the label would be; means of any choice that does not depend on
    the prompt's own labels are unbiased, whatever the guess. A candidate without labels gets NaN.
    """
    known = cells.count > 0
    if known.all():
        return cells.mean
    share = known.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        average = np.where(known, cells.mean, 0.0).sum(0) / known.sum(0)
        away = np.where(known, cells.mean - average, 0.0)
        others = known.sum(1, keepdims=True) - known
        guess = average + (away.sum(1, keepdims=True) - away) / (others + 1)  # as if one more label were average
        return np.asarray(np.where(known, guess + (cells.mean - guess) / share, guess), dtype=np.float64)


def completed(cells: Cells) -> Cells:
    """The cells with `unbiased_labels`; counts are as they were."""
    return replace(cells, mean=unbiased_labels(cells))
