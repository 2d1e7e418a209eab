"""Estimates, and what a router makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from costroute_rt.export.router import curve
from costroute_rt.export.router import evaluate as ev
from costroute_rt.routing.array import FloatArray
from tests.export.router.test_evaluate import estimates, make


@dataclass(frozen=True)
class Doubt:
    """Evidence that is sure only where a millisecond costs more than `least`."""

    least: float

    def share(self, penalty: FloatArray) -> float:
        return float(np.ptp(penalty) > 30 * self.least)

    def select(self, columns: object) -> Doubt:
        return self


def test_without_evidence_estimates_count_as_they_are() -> None:
    cells = make(20)
    judged = estimates(cells)
    assert judged.at(0.01, cells.cost_ms) is judged.mean
    assert (judged.route(cells.cost_ms).choice == curve.route(judged.mean, cells.cost_ms).choice).all()


def test_a_strict_router_follows_averages_where_the_gain_is_not_sure() -> None:
    cells = make(20)
    judged = replace(estimates(cells), evidence=Doubt(0.005))
    doubted, sure = judged.route(cells.cost_ms, [0.001, 0.008]).choice
    assert (doubted == 1).all()  # averages prefer the dear candidate
    assert (sure == curve.route(judged.mean, cells.cost_ms, 0.008).choice[0]).all()
    assert len(set(sure.tolist())) == 2


def test_a_strict_router_without_any_evidence_is_judged_as_averages() -> None:
    cells = make(60)
    judged = replace(estimates(cells), evidence=Doubt(np.inf))
    found = ev.evaluate(cells, judged, resamples=20)
    assert all(row["prompts"] == 0 for row in found.against_trend)
    assert {row["share"] for row in found.decided} == {0.0}
    assert found.sure_ms == []


def test_some_prompts_keep_their_own_numbers() -> None:
    cells = make(20)
    judged = replace(estimates(cells), label_widths=np.arange(5 * 20 * 2.0).reshape(5, 20, 2), trust=np.arange(20.0))
    some = judged.select([3, 1])
    assert some.trust.tolist() == [3, 1]
    assert some.label_widths is not None
    assert some.label_widths.shape == (5, 2, 2)
    assert (some.mean == judged.mean[[3, 1]]).all()
