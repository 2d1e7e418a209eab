"""Scenarios and reports: failed rows are kept, figures are compared with targets, the exit code reports both."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

import pytest

from benchmarks.report import run_benchmark
from benchmarks.scenario import (
    Figure,
    Measurement,
    Outcome,
    Scenario,
    Target,
    defer_failure,
    mean_figure,
    median_figure,
    ratio_figure,
    run_interleaved,
    run_scenario,
)

FAST = Scenario(name="fast", settings={"steps": 4}, repeats=3, targets={"total": Target(high=10.0)})


def measured(ms: float) -> Callable[[Scenario], Measurement]:
    return lambda _: Measurement(figures=[Figure(name="total", value=ms, unit="ms", low=ms - 1, high=ms + 1)], notes={"chosen": "base@4"})


def broken(_: Scenario) -> Measurement:
    raise RuntimeError("the battery fell out\nand more")


def run(outcomes: Sequence[Outcome], *, as_json: bool = False) -> int:
    return run_benchmark("example", argparse.Namespace(json=as_json, quick=False), ["--json"] if as_json else [], lambda: outcomes)


@pytest.mark.parametrize(("ms", "code", "verdict"), [(9.0, 0, "met"), (10.0, 0, "met"), (11.0, 1, "MISSED")])
def test_the_exit_code_is_zero_if_every_figure_met_its_target(
    ms: float, code: int, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([run_scenario(FAST, measured(ms))]) == code
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fast: total"))
    assert line.split() == ["fast:", "total", f"{ms:.1f}", "ms", "<=", "10.0", "ms", verdict]


def test_a_failed_scenario_is_a_row_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    other = Scenario(name="slow")
    assert run([run_scenario(FAST, measured(1.0)), run_scenario(other, broken)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["slow", "failed"] for line in out)
    assert "failed: slow: RuntimeError: the battery fell out" in out


def test_an_error_before_any_scenario_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    def explode() -> Sequence[Outcome]:
        raise FileNotFoundError("no bundle")

    assert run_benchmark("example", argparse.Namespace(json=True, quick=False), [], explode) == 1
    row = json.loads(capsys.readouterr().out)
    assert (row["error"], row["good"]) == ("FileNotFoundError: no bundle", False)


def test_a_target_without_its_figure_is_missed() -> None:
    outcome = run_scenario(FAST, lambda _: Measurement(figures=[]))
    assert outcome.missed_targets() == ["total"]
    assert not outcome.is_good


def test_json_lines_hold_device_versions_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([run_scenario(FAST, measured(11.0)), run_scenario(FAST, broken)], as_json=True) == 1
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
    run_scenario(FAST, broken)
    assert capsys.readouterr().out == ""


def test_calls_are_interleaved_and_a_failed_call_is_not_repeated() -> None:
    calls: list[str] = []

    def call(name: str) -> str:
        calls.append(name)
        if name == "b" and calls.count("b") == 2:
            raise ValueError("b")
        return name + str(calls.count(name))

    results = run_interleaved({name: lambda name=name: call(name) for name in "abc"}, warm_up=1, repeats=2, sleep=lambda _: None)  # type: ignore[misc]
    assert "".join(calls) == "abcabcac"
    assert (results["a"], results["c"]) == (["a2", "a3"], ["c2", "c3"])
    assert isinstance(results["b"], ValueError)


def test_a_median_figure_has_quartiles() -> None:
    assert median_figure("total", [5, 1, 2, 3, 4], "ms") == Figure(name="total", value=3.0, unit="ms", low=2.0, high=4.0)


def test_a_ratio_figure_is_the_ratio_of_medians_with_quartiles_of_the_ratios() -> None:
    assert ratio_figure("speedup", [20.0, 30.0], [10.0, 10.0]) == Figure(name="speedup", value=2.5, unit="ratio", low=2.25, high=2.75)


def test_a_deferred_failure_is_raised_by_the_call() -> None:
    def broken_opener() -> Callable[[int], int]:
        raise OSError("no device")

    call = defer_failure(broken_opener)
    with pytest.raises(OSError, match="no device"):
        call(1)
    assert defer_failure(lambda: abs)(-2) == 2


def test_the_interval_of_a_mean_shrinks_with_more_values() -> None:
    few, many = mean_figure("score", [0, 1] * 10, "score"), mean_figure("score", [0, 1] * 1000, "score")
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None  # noqa: PT018
    assert few.low < many.low < 0.5 < many.high < few.high
    assert (many.high - many.low) == pytest.approx(4 * 0.5 / 2000**0.5, rel=0.1)


def test_many_figures_are_printed_one_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    figures = [Figure(name=f"part {index}", value=index, unit="count", table="parts") for index in range(20)]
    run([run_scenario(Scenario(name="whole"), lambda _: Measurement(figures=figures))])
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["parts:"] in out
    assert ["part", "7", "7"] in out
