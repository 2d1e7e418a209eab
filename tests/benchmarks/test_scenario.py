"""The shape every benchmark has: rows that failed stay, figures stand beside their targets, the exit code says whether all is well."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

import pytest

from benchmarks.report import run_benchmark
from benchmarks.scenario import Figure, Measured, Outcome, Scenario, Target, attempt, mean, run_in_turns, spread

FAST = Scenario(name="fast", settings={"steps": 4}, repeats=3, targets={"total": Target(high=10.0)})


def measured(ms: float) -> Callable[[Scenario], Measured]:
    return lambda _: Measured(figures=[Figure(name="total", value=ms, unit="ms", low=ms - 1, high=ms + 1)], notes={"chosen": "base@4"})


def broken(_: Scenario) -> Measured:
    raise RuntimeError("the battery fell out\nand more")


def run(outcomes: Sequence[Outcome], *, as_json: bool = False) -> int:
    return run_benchmark("example", argparse.Namespace(json=as_json, quick=False), ["--json"] if as_json else [], lambda: outcomes)


@pytest.mark.parametrize(("ms", "code", "verdict"), [(9.0, 0, "met"), (10.0, 0, "met"), (11.0, 1, "SHORT")])
def test_the_exit_code_says_whether_every_figure_reached_its_target(
    ms: float, code: int, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([attempt(FAST, measured(ms))]) == code
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fast: total"))
    assert line.split() == ["fast:", "total", f"{ms:.1f}", "ms", "<=", "10.0", "ms", verdict]


def test_a_failing_scenario_is_a_row_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    other = Scenario(name="slow")
    assert run([attempt(FAST, measured(1.0)), attempt(other, broken)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["slow", "failed"] for line in out)
    assert "failed: slow: RuntimeError: the battery fell out" in out


def test_what_no_scenario_can_do_without_is_a_row_too(capsys: pytest.CaptureFixture[str]) -> None:
    def explode() -> Sequence[Outcome]:
        raise FileNotFoundError("no bundle")

    assert run_benchmark("example", argparse.Namespace(json=True, quick=False), [], explode) == 1
    row = json.loads(capsys.readouterr().out)
    assert (row["error"], row["good"]) == ("FileNotFoundError: no bundle", False)


def test_a_target_without_its_figure_falls_short() -> None:
    outcome = attempt(FAST, lambda _: Measured(figures=[]))
    assert outcome.shortfalls() == ["total"]
    assert not outcome.is_good


def test_json_lines_say_where_and_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([attempt(FAST, measured(11.0)), attempt(FAST, broken)], as_json=True) == 1
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert good["scenario"] == {"name": "fast", "settings": {"steps": 4}, "warm_up": 0, "repeats": 3}
    assert good["figures"] == [
        {"name": "total", "value": 11.0, "unit": "ms", "low": 10.0, "high": 12.0, "target": {"at_most": 10.0}, "met": False}
    ]
    assert good["command"] == "python -m benchmarks.example --json"
    assert good["device"]["cpu"]
    assert "numpy" in good["versions"]
    assert (bad["error"], bad["missing"]) == ("RuntimeError: the battery fell out", ["total"])


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    attempt(FAST, broken)
    assert capsys.readouterr().out == ""


def test_turns_are_taken_in_rounds_and_a_failing_call_takes_no_more() -> None:
    calls: list[str] = []

    def call(name: str) -> str:
        calls.append(name)
        if name == "b" and calls.count("b") == 2:
            raise ValueError("b")
        return name + str(calls.count(name))

    found = run_in_turns({name: lambda name=name: call(name) for name in "abc"}, warm_up=1, repeats=2, sleep=lambda _: None)  # type: ignore[misc]
    assert "".join(calls) == "abcabcac"
    assert (found["a"], found["c"]) == (["a2", "a3"], ["c2", "c3"])
    assert isinstance(found["b"], ValueError)


def test_spread_is_median_and_quartiles() -> None:
    assert spread("total", [5, 1, 2, 3, 4], "ms") == Figure(name="total", value=3.0, unit="ms", low=2.0, high=4.0)


def test_the_interval_of_a_mean_shrinks_with_more_values() -> None:
    few, many = mean("score", [0, 1] * 10, "score"), mean("score", [0, 1] * 1000, "score")
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None  # noqa: PT018
    assert few.low < many.low < 0.5 < many.high < few.high
    assert (many.high - many.low) == pytest.approx(4 * 0.5 / 2000**0.5, rel=0.1)


def test_many_figures_are_shown_downwards(capsys: pytest.CaptureFixture[str]) -> None:
    figures = [Figure(name=f"part {index}", value=index, unit="count", table="parts") for index in range(20)]
    run([attempt(Scenario(name="whole"), lambda _: Measured(figures=figures))])
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["parts:"] in out
    assert ["part", "7", "7"] in out
