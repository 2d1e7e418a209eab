"""How like another candidate one is by its settings, and what that says about its quality before any label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.routing.array import FloatArray

_APART = {"family": 0.5, "denoiser": 0.5, "scheduler": 0.1, "decoder": 0.1}
"""Distance of two candidates that differ in this; one distance 1 is a correlation of 1/e."""
_PER_DOUBLING = 0.25
"""Distance for twice as many steps, and for twice the cost."""
_PER_GUIDANCE = 0.02
"""Distance for each unit of the guidance scale."""
_STRANGERS = 1.2
"""Distance of two candidates of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What the others say about a candidate without labels: quality = shares . the others' quality, with an error."""

    shares: FloatArray
    """float64[others], 0 or more, sum 1."""
    error_ratio: float
    """Squared error of the candidate's average over the variance between candidates."""


def distances(rows: Sequence[Mapping[str, Any]], cost_ms: FloatArray | None = None) -> FloatArray:
    """float64[candidates, candidates]: how different the candidates' settings are.

    rows: as in `Pool.rows`; a setting that is None is not known. cost_ms: float64[candidates], 0 where unknown.
    """
    costs = np.zeros(len(rows)) if cost_ms is None else cost_ms
    count = len(rows)
    found = np.zeros((count, count))
    for first in range(count):
        for second in range(first):
            found[first, second] = found[second, first] = _distance(rows[first], rows[second], costs[first], costs[second])
    return found


def prior(between: FloatArray, new: int) -> Prior:
    """Ordinary kriging of candidate `new` from all others (Cressie 1993, section 3.2), shares below 0 set to 0.

    between: as `distances` gives them; the correlation of two candidates' qualities is exp(-distance).
    """
    others = np.delete(np.arange(len(between)), new)
    covariance = np.exp(-between[np.ix_(others, others)]) + 1e-6 * np.eye(len(others))
    toward = np.exp(-between[others, new])
    solved, ones = np.linalg.solve(covariance, toward), np.linalg.solve(covariance, np.ones(len(others)))
    shares = np.maximum(solved + ones * (1 - solved.sum()) / ones.sum(), 0)
    shares = shares / shares.sum()
    return Prior(shares, float(max(1 - 2 * shares @ toward + shares @ covariance @ shares, 1e-3)))


def variance_between(between: FloatArray, averages: FloatArray) -> float:
    """Variance of candidates' average qualities that are as different as `between`; 0 for one candidate."""
    if len(averages) < 2:
        return 0.0
    inverse = np.linalg.inv(np.exp(-between) + 1e-6 * np.eye(len(averages)))
    away = averages - (inverse @ averages).sum() / inverse.sum()
    return float(away @ inverse @ away / (len(averages) - 1))


def _distance(first: Mapping[str, Any], second: Mapping[str, Any], first_ms: float, second_ms: float) -> float:
    if first.get("denoiser") is None or second.get("denoiser") is None:
        return _STRANGERS + (_PER_DOUBLING * abs(np.log2(first_ms / second_ms)) if first_ms > 0 and second_ms > 0 else 0.0)
    differ = [name for name in ("denoiser", "scheduler", "decoder") if first.get(name) != second.get(name)]
    differ += ["family"] if _family(first) != _family(second) else []
    distance = sum(_APART[name] for name in differ)
    distance += _PER_DOUBLING * abs(np.log2(first["num_inference_steps"] / second["num_inference_steps"]))
    return float(distance + _PER_GUIDANCE * abs(first["guidance_scale"] - second["guidance_scale"]))


def _family(row: Mapping[str, Any]) -> str:
    """Name of its bundle in a pool of several."""
    return str(row["denoiser"]).rpartition("/")[0]
