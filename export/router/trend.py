"""Choices against the trend: the router chooses another candidate than averages would at the same trade-off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Routed
from costroute_rt.export.router.estimates import Estimates
from costroute_rt.export.router.rounding import rounded
from costroute_rt.routing.array import FloatArray, IntArray

SHOWN = 3
"""Prompts for each candidate."""


def sweep(estimates: Estimates, cells: Cells) -> Routed:
    """The router's choices at its own switching points, at those of averages, and between; at multiplier 0 alone without costs."""
    if not cells.has_cost:
        return estimates.route(cells.cost_ms, [0.0])
    own, usual = (curve.multipliers(mean, cells.cost_ms) for mean in (estimates.mean, estimates.average[None]))
    lams = np.unique(np.concatenate([own, usual]))
    return estimates.route(cells.cost_ms, np.unique(np.concatenate([lams, (lams[1:] + lams[:-1]) / 2])))


def average_choice(routed: Routed, average: FloatArray, cost: FloatArray) -> IntArray:
    """int64[settings]: what averages, float64[candidates], choose at each multiplier of `routed`; of equal candidates the cheapest."""
    lams, order = _multipliers(routed)[:, None], np.argsort(cost, kind="stable")
    return np.asarray(order[np.argmax(average[order] - lams * cost[order], axis=1)], dtype=np.int64)


def decided_shares(routed: Routed, average: FloatArray, cells: Cells) -> list[dict[str, Any]]:
    """For each multiplier of a sweep: mean cost, and the share of the prompts whose candidate is another one than by averages."""
    usual = average_choice(routed, average, cells.cost_ms)
    shares, spent = (routed.choice != usual[:, None]).mean(1), routed.points(cells.cost_ms, cells.mean).cost
    by_average = cells.cost_ms[usual]
    return [
        {"cost_ms": rounded(cost), "share": rounded(share), "average": cells.candidates[each], "average_ms": rounded(paid)}
        for cost, share, each, paid in zip(spent, shares, usual, by_average, strict=True)
    ]


def against_trend(routed: Routed, estimates: Estimates, cells: Cells) -> list[dict[str, Any]]:
    """For each candidate: the prompts that get it although averages choose another one, and those where the router is surest of it.

        advantage = (q_m - lambda c_m) - (q_a - lambda c_a)

    m is the router's candidate, a that of averages. A prompt counts once for each m, at the multiplier where the estimated advantage is
    greatest. Examples are chosen by estimates, never by labels: SHOWN different texts, those with labels of both candidates first.
    `quality` and `cost_ms` are means of m less a over the prompts with labels of both, and `came_true` the share of them where the labels
    give m the advantage.

    routed: as `sweep` returns it. cells: as labelled, with their missing cells.
    """
    usual, advantage = average_choice(routed, estimates.average, cells.cost_ms), _advantage(routed, estimates, cells.cost_ms)
    lams, rows = _multipliers(routed), np.arange(len(cells))
    found = []
    for index, name in enumerate(cells.candidates):
        own = np.where((routed.choice == index) & (usual != index)[:, None], advantage, -np.inf)
        setting = own.argmax(0)
        surest = own[setting, rows]
        chosen = np.flatnonzero(np.isfinite(surest))
        each = _Choices(index=index, rows=chosen, other=usual[setting[chosen]], lam=lams[setting[chosen]], advantage=surest[chosen])
        found.append({"name": name, **_summary(each, cells), "examples": _examples(each, estimates, cells)})
    return found


def _multipliers(routed: Routed) -> FloatArray:
    return np.zeros(len(routed.choice)) if routed.multiplier is None else routed.multiplier


def _advantage(routed: Routed, estimates: Estimates, cost: FloatArray) -> FloatArray:
    """float64[settings, prompts]: of the router's candidate over that of averages, as estimated."""
    rows, found = np.arange(len(estimates.mean)), []
    for choice, usual, lam in zip(routed.choice, average_choice(routed, estimates.average, cost), _multipliers(routed), strict=True):
        net = estimates.at(float(lam), cost) - lam * cost
        found.append(net[rows, choice] - net[:, usual])
    return np.stack(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choices:
    """The prompts that get one candidate against the trend, with what averages choose, the multiplier and the estimated advantage."""

    index: int
    rows: IntArray
    other: IntArray
    lam: FloatArray
    advantage: FloatArray

    def labelled(self, cells: Cells) -> npt.NDArray[np.bool_]:
        """bool[rows]: whether both candidates have a label."""
        return np.asarray((cells.count[self.rows, self.index] > 0) & (cells.count[self.rows, self.other] > 0))


def _summary(choices: _Choices, cells: Cells) -> dict[str, Any]:
    labelled = choices.labelled(cells)
    rows, other, lam = (array[labelled] for array in (choices.rows, choices.other, choices.lam))
    quality = cells.mean[rows, choices.index] - cells.mean[rows, other]
    spent = cells.cost_ms[choices.index] - cells.cost_ms[other]
    return {
        "prompts": len(choices.rows),
        "labelled": len(rows),
        "quality": rounded(quality.mean()) if len(rows) else None,
        "cost_ms": rounded(spent.mean()) if len(rows) and cells.has_cost else None,
        "came_true": rounded((quality > lam * spent).mean()) if len(rows) else None,
    }


def _examples(choices: _Choices, estimates: Estimates, cells: Cells) -> list[dict[str, Any]]:
    order = np.lexsort((choices.rows, -choices.advantage, ~choices.labelled(cells)))
    firsts: dict[int, int] = {}
    for place in order.tolist():
        firsts.setdefault(int(cells.groups[choices.rows[place]]), place)
    return [
        {
            "prompt": cells.prompts[choices.rows[place]],
            "lambda": rounded(choices.lam[place]),
            "trust": rounded(estimates.trust[choices.rows[place]]),
            "chosen": _side(cells, estimates, int(choices.rows[place]), choices.index),
            "average": _side(cells, estimates, int(choices.rows[place]), int(choices.other[place])),
        }
        for place in list(firsts.values())[:SHOWN]
    ]


def _side(cells: Cells, estimates: Estimates, row: int, candidate: int) -> dict[str, Any]:
    return {
        "name": cells.candidates[candidate],
        "estimate": rounded(estimates.mean[row, candidate]),
        "label": rounded(cells.mean[row, candidate]) if cells.count[row, candidate] else None,
        "cost_ms": rounded(cells.cost_ms[candidate]) if cells.has_cost else None,
    }
