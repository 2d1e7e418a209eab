"""`python -m benchmarks.budget` on a tiny bundle."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import budget
from benchmarks.scenario import Outcome, run_scenario


def result(actual_ms: float, *, predicted_ms: float = 100.0, max_ms: float = 120.0, replanned: int = 0) -> Any:
    route = SimpleNamespace(max_ms=max_ms, chosen=SimpleNamespace(name="postcard-base@8"), option=SimpleNamespace(fits=True))
    return SimpleNamespace(route=route, actual_ms=actual_ms, predicted_ms=predicted_ms, met=actual_ms <= max_ms, replanned=replanned)


def judge(results: list[Any]) -> Outcome:
    return run_scenario(budget.make_scenarios([120.0], len(results))[-1], lambda each: budget.summarise(results, each))


def test_met_budgets_and_good_predictions_meet_the_targets() -> None:
    outcome = judge([result(100.0)] * 97 + [result(121.0)] * 3)
    assert outcome.is_good
    assert outcome.notes == {"chosen candidates": "base@8 100"}


@pytest.mark.parametrize(
    ("results", "missed"),
    [
        ([result(100.0)] * 96 + [result(121.0)] * 4, "budget met"),
        ([result(85.0)] * 10, "predicted/actual time"),
        ([result(115.0)] * 10, "predicted/actual time"),
    ],
)
def test_missed_budgets_and_wrong_predictions_miss_their_target(results: list[Any], missed: str) -> None:
    assert judge(results).missed_targets() == [missed]


def test_replanned_images_and_skipped_steps_are_counted() -> None:
    outcome = judge([result(100.0), result(100.0, replanned=2), result(100.0, replanned=1)])
    found = {figure.name: figure.value for figure in outcome.figures}
    assert (found["re-planned images"], found["skipped steps"]) == (2, 3)


def test_five_budgets_from_the_fastest_to_the_slowest(tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget.main(["--quick", "--json", "--bundle", str(tiny_bundle), "--home", str(engine_home)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["error"] for row in rows] == [None] * 6
    limits = [row["scenario"]["settings"]["max_ms"] for row in rows[:5]]
    ratios = [after / before for before, after in pairwise(limits)]
    assert ratios == pytest.approx([ratios[0]] * 4, rel=0.01)
    assert rows[-1]["scenario"]["name"] == "all budgets"
    assert rows[-1]["scenario"]["repeats"] == 5 * rows[0]["scenario"]["repeats"]
