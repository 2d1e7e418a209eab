"""A new candidate that differs from one of the router in its decoder alone: estimated as that one, less what its decoder loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from costroute_rt.routing.array import FloatArray
from costroute_rt.routing.estimator.shift import Shift

LEAST_PAIRS = 10
"""Fewer prompts with labels of both do not show the difference."""


def find_twin(pool: Sequence[Mapping[str, Any]], name: str, others: Sequence[str]) -> int | None:
    """The number among `others` of the candidate that makes the same latents and decodes them differently; None if there is none.

    pool: rows as in `Pool.rows`.
    """
    rows = {row["name"]: row for row in pool}
    own = rows[name]
    if own.get("decoder") is None:
        return None
    return next((place for place, other in enumerate(others) if _without_decoder(rows[other]) == _without_decoder(own)), None)


def fit_shift(labels: FloatArray, others: FloatArray, twin: int) -> Shift | None:
    """The mean difference of the labels that both have, and its standard error; None if fewer than LEAST_PAIRS prompts have both.

    The offset is at most minus its standard error. A router fitted to the full decoder's images has learned nothing about the other one's
    details, and a score that does not see them is no reason to prefer it: it is chosen where it saves time that the budget or λ asks for.

    labels: float64[prompts] of the new candidate, NaN where missing. others: float64[prompts, others], likewise.
    """
    differences = labels - others[:, twin]
    differences = differences[~np.isnan(differences)]
    if len(differences) < LEAST_PAIRS:
        return None
    error = max(float(differences.std(ddof=1)) / len(differences) ** 0.5, 1e-6)
    offset = min(float(differences.mean()), -error)
    return Shift(np.array([offset]), np.array([error]), twin=twin, others=others.shape[1], prompts=len(differences))


def _without_decoder(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("name", "decoder")}
