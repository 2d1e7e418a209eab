"""Labels with missing cells, measured as if there were none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costroute_rt.export.router.missing import unbiased_labels
from tests.export.router.test_fit import make


def test_means_of_a_choice_are_unbiased() -> None:
    cells, drawn = make(150, noise=0.3, seeds=1), np.random.default_rng(5)
    choice = drawn.integers(0, 3, len(cells))
    truth, found = float(cells.mean[np.arange(150), choice].mean()), []
    for _ in range(400):
        hidden = drawn.random(cells.mean.shape) < 0.6
        sparse = replace(cells, mean=np.where(hidden, np.nan, cells.mean), count=np.where(hidden, 0, cells.count))
        found.append(float(unbiased_labels(sparse)[np.arange(150), choice].mean()))
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(len(found)))


def test_complete_tables_are_as_they_are() -> None:
    cells = make(20)
    assert unbiased_labels(cells) is cells.mean


def test_the_prompts_other_labels_make_it_less_noisy() -> None:
    cells, drawn = make(300, signal=0, noise=0.02, seeds=1), np.random.default_rng(5)
    cells = replace(cells, mean=cells.mean + drawn.standard_normal((300, 1)))  # prompts differ in ease
    hidden = drawn.random(cells.mean.shape) < 0.4
    filled = unbiased_labels(replace(cells, mean=np.where(hidden, np.nan, cells.mean), count=np.where(hidden, 0, cells.count)))
    known = cells.mean.copy()
    known[hidden] = 0
    plain = known / (~hidden).mean(0)
    assert filled.std() < plain.std()
    assert np.isfinite(filled).all()
