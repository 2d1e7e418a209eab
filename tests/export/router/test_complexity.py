"""Candidates by complexity, as plain data."""

from __future__ import annotations

import pytest

from costroute_rt.export.router import curve
from costroute_rt.export.router.complexity import COMPLEXITIES, describe_complexity, shares_by_complexity
from tests.export.router.test_evaluate import estimates
from tests.export.router.test_evaluate import make as make_kinds


def test_kinds_are_categories_with_their_shares_words_and_cost() -> None:
    cells = make_kinds(60)
    routed = curve.route(estimates(cells).mean, cells.cost_ms, [0.0])
    found = describe_complexity(routed, cells)
    assert found["by"] == "category"
    assert {row["name"]: row["candidates"] for row in found["kinds"]} == shares_by_complexity(routed, cells)
    easy, hard = found["kinds"]
    assert (easy["prompts"], hard["prompts"]) == (30, 30)
    assert (easy["candidates"]["cheap"], hard["candidates"]["dear"]) == (1, 1)
    assert (easy["cost_ms"], hard["cost_ms"]) == (10, 40)
    assert hard["words"] == pytest.approx(easy["words"] + 7)


def test_without_categories_kinds_are_thirds_by_words() -> None:
    from dataclasses import replace

    cells = replace(make_kinds(60), categories=None)
    found = describe_complexity(curve.route(estimates(make_kinds(60)).mean, cells.cost_ms), cells)
    assert found["by"] == "words"
    assert [row["name"] for row in found["kinds"]] == [name for name in COMPLEXITIES if name in {row["name"] for row in found["kinds"]}]
    assert sum(row["prompts"] for row in found["kinds"]) == 60


def test_without_costs_the_best_estimate_decides() -> None:
    cells = make_kinds(60, costs=False)
    found = describe_complexity(curve.route(estimates(cells).mean, cells.cost_ms, [0.0]), cells)
    assert found["cost_ms"] is None
    assert found["kinds"][1]["candidates"]["dear"] == 1
