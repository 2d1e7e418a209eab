"""Choices that averages would not have made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.estimates import Estimates
from costroute_rt.export.router.trend import SHOWN, against_trend, average_choice, decided_shares, sweep
from tests.export.router.test_evaluate import estimates, make


def found_of(cells: Cells, judged: Estimates) -> dict[str, dict[str, Any]]:
    routed = sweep(judged, cells)
    return {str(row["name"]): row for row in against_trend(routed, judged, cells)}


def test_averages_choose_the_better_candidate_until_it_costs_too_much() -> None:
    cells = make(40)
    routed = curve.route(estimates(cells).mean, cells.cost_ms, [0.0, 0.009, 0.01, 1.0])
    assert average_choice(routed, np.array([0.56, 0.85]), cells.cost_ms).tolist() == [1, 1, 0, 0]  # 0.29 more quality for 30 ms more


def test_every_example_gets_another_candidate_than_by_averages_and_shows_the_labels_of_both() -> None:
    cells = make(40)
    judged = estimates(cells)
    for name, row in found_of(cells, judged).items():
        assert 0 < row["prompts"] == row["labelled"]
        assert row["came_true"] > 0.4
        assert len(row["examples"]) == SHOWN
        for each in row["examples"]:
            place = cells.prompts.index(each["prompt"])
            sides = {each["chosen"]["name"]: each["chosen"], each["average"]["name"]: each["average"]}
            assert each["chosen"]["name"] == name
            assert set(sides) == set(cells.candidates)
            assert [sides[other]["label"] for other in cells.candidates] == pytest.approx(cells.mean[place].tolist(), abs=1e-5)
            assert [sides[other]["estimate"] for other in cells.candidates] == pytest.approx(judged.mean[place].tolist())
            net = {other: side["estimate"] - each["lambda"] * side["cost_ms"] for other, side in sides.items()}
            assert net[name] == max(net.values())


def test_cheap_prompts_get_the_cheap_candidate_against_averages_and_hard_ones_the_other() -> None:
    cells = make(40)
    found = found_of(cells, estimates(cells))
    kinds = dict(zip(cells.prompts, cells.categories or (), strict=True))
    assert {kinds[each["prompt"]] for each in found["cheap"]["examples"]} == {"easy"}
    assert {kinds[each["prompt"]] for each in found["dear"]["examples"]} == {"hard"}


def test_what_came_true_is_counted_by_the_labels() -> None:
    cells = make(40)
    hard = found_of(cells, estimates(cells))["dear"]
    assert hard["came_true"] == 1  # 0.6 more quality, far above the noise
    assert hard["quality"] == pytest.approx(0.6, abs=0.05)
    assert hard["cost_ms"] == 30
    wrong = found_of(replace(cells, mean=cells.mean[:, ::-1]), estimates(cells))["dear"]
    assert wrong["came_true"] == 0


def test_a_router_on_averages_goes_with_the_trend() -> None:
    cells = make(40)
    judged = estimates(cells, know=False)
    assert all(row["prompts"] == 0 and row["examples"] == [] for row in found_of(cells, judged).values())
    routed = sweep(judged, cells)
    assert {row["share"] for row in decided_shares(routed, judged.average, cells)} == {0.0}


def test_shares_count_the_prompts_whose_candidate_differs() -> None:
    cells = make(40)
    judged = estimates(cells)
    routed = curve.route(judged.mean, cells.cost_ms, [0.0, 0.005, 0.015, 1.0])
    rows = decided_shares(routed, judged.average, cells)
    assert [row["share"] for row in rows] == [0.5, 0.5, 0.5, 0.0]
    assert [row["average"] for row in rows] == ["dear", "dear", "cheap", "cheap"]
    assert [row["cost_ms"] for row in rows] == [25.0, 25.0, 25.0, 10.0]


def test_prompts_with_labels_of_both_come_first_and_texts_are_not_repeated() -> None:
    cells = make(40)
    count = cells.count.copy()
    count[:30, 0] = 0  # one of two labels
    sparse = replace(cells, count=count, mean=np.where(count > 0, cells.mean, np.nan), groups=np.arange(40) // 4)
    row = found_of(sparse, estimates(cells))["dear"]
    assert (row["prompts"], row["labelled"]) == (20, 5)
    examples = row["examples"]
    assert [each["average"]["label"] is None for each in examples] == [False, False, False]
    assert len({sparse.groups[cells.prompts.index(each["prompt"])] for each in examples}) == 3
