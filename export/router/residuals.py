"""Honest errors from residuals: labels minus estimates that were made without them."""

from __future__ import annotations

import numpy as np

from costroute_rt.export.router.cells import Cells
from costroute_rt.judgement import EQUAL, LEVELS
from costroute_rt.routing.array import FloatArray
from costroute_rt.routing.reliability import Reliability

_LEAST = 20
"""With fewer residuals than this, those of all candidates stand in."""
_MOST_PAIRED = 64
"""With more candidates, differences are not measured pair by pair."""


def measure_reliability(cells: Cells, estimate: FloatArray, apart: FloatArray | None = None) -> Reliability:
    """Quantiles of the absolute residuals, per candidate (cross-conformal, Vovk 2015).

    For expected quality, and expected differences, they are scaled by sqrt(t / (t + n)): n is the mean variance of the labels' noise, where
    seeds or raters show it, and t the mean squared residual less n, not below 0.

    estimate: float64[prompts, candidates], shrunk as used, made without the prompts. apart: the same where a prompt's whole kind took no
    part, for prompts far from the labels; by default, the widths are the same near and far.
    """
    known = cells.count > 0
    residual = np.where(known, cells.mean - estimate, np.nan)
    noise = _noise(cells)
    near = _widths(residual)
    far = near if apart is None else np.maximum(near, _widths(np.where(known, cells.mean - apart, np.nan)))
    share = np.array([_share(residual[:, column], noise[column]) for column in range(len(noise))])
    return Reliability(near, far, share, _differences(residual, noise, near, share))


def _noise(cells: Cells) -> FloatArray:
    """float64[candidates]: mean variance of a label's noise; 0 where it is unknown."""
    if not cells.has_noise:
        return np.zeros(len(cells.candidates))
    known = cells.count > 0
    return np.asarray(np.where(known, cells.variance, 0.0).sum(0) / np.maximum(known.sum(0), 1))


def _share(residual: FloatArray, noise: float) -> float:
    own = residual[np.isfinite(residual)]
    if not len(own) or not noise > 0:
        return 1.0
    total = float((own**2).mean())
    return float(np.sqrt(max(total - noise, 0.0) / total)) if total > 0 else 1.0


def _widths(residual: FloatArray) -> FloatArray:
    """float64[LEVELS, candidates]"""
    every = residual[np.isfinite(residual)]
    columns = [column[np.isfinite(column)] for column in residual.T]
    return np.stack([_quantiles(own if len(own) >= _LEAST else every) for own in columns], axis=1)


def _quantiles(residual: FloatArray, levels: tuple[float, ...] = LEVELS) -> FloatArray:
    """The ceil((n + 1) level)-th smallest absolute residual, for each level."""
    ordered = np.sort(np.abs(residual))
    if not len(ordered):
        return np.zeros(len(levels))
    ranks = np.ceil((len(ordered) + 1) * np.array(levels)).astype(int)
    return np.asarray(ordered[np.minimum(ranks, len(ordered)) - 1])


def _differences(residual: FloatArray, noise: FloatArray, near: FloatArray, share: FloatArray) -> FloatArray:
    """float64[candidates, candidates]; as if errors were independent where too few prompts are labelled for both."""
    single = (share * near[LEVELS.index(EQUAL)]) ** 2
    found = np.sqrt(single[:, None] + single[None, :])
    count = len(noise)
    if count <= _MOST_PAIRED:
        for one in range(count):
            for other in range(one):
                own = residual[:, one] - residual[:, other]
                own = own[np.isfinite(own)]
                if len(own) >= _LEAST:
                    width = float(_quantiles(own, (EQUAL,))[0]) * _share(own, float(noise[one] + noise[other]))
                    found[one, other] = found[other, one] = width
    np.fill_diagonal(found, 0.0)
    return found
