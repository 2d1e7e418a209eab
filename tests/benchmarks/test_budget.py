"""`python -m benchmarks.budget` on a tiny bundle."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import budget
from benchmarks.scenario import Outcome, attempt


def result(actual_ms: float, *, predicted_ms: float = 100.0, max_ms: float = 120.0, replanned: int = 0) -> Any:
    route = SimpleNamespace(max_ms=max_ms, chosen=SimpleNamespace(name="postcard-base@8"), option=SimpleNamespace(fits=True))
    return SimpleNamespace(route=route, actual_ms=actual_ms, predicted_ms=predicted_ms, met=actual_ms <= max_ms, replanned=replanned)


def judge(results: list[Any]) -> Outcome:
    return attempt(budget.plan([120.0], len(results))[-1], lambda at: budget.describe(results, at))


def test_budgets_kept_and_well_predicted_are_good() -> None:
    outcome = judge([result(100.0)] * 97 + [result(121.0)] * 3)
    assert outcome.is_good
    assert outcome.notes == {"chosen": "base@8 100"}


@pytest.mark.parametrize(
    ("results", "short"),
    [
        ([result(100.0)] * 96 + [result(121.0)] * 4, "met"),
        ([result(85.0)] * 10, "predicted/actual"),
        ([result(115.0)] * 10, "predicted/actual"),
    ],
)
def test_what_misses_falls_short(results: list[Any], short: str) -> None:
    assert judge(results).shortfalls() == [short]


def test_replanning_is_counted() -> None:
    outcome = judge([result(100.0), result(100.0, replanned=2), result(100.0, replanned=1)])
    found = {figure.name: figure.value for figure in outcome.figures}
    assert (found["re-planned"], found["rows left out"]) == (2, 3)


def test_five_budgets_from_the_fastest_to_the_slowest(tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget.main(["--quick", "--json", "--bundle", str(tiny_bundle), "--home", str(engine_home)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["error"] for row in rows] == [None] * 6
    limits = [row["scenario"]["settings"]["max_ms"] for row in rows[:5]]
    ratios = [after / before for before, after in pairwise(limits)]
    assert ratios == pytest.approx([ratios[0]] * 4, rel=0.01)
    assert rows[-1]["scenario"]["name"] == "all budgets"
    assert rows[-1]["scenario"]["repeats"] == 5 * rows[0]["scenario"]["repeats"]
