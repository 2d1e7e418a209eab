"""Our images beside those of diffusers' pipelines: the table of cases, its verdicts, and a sample of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.parity.__main__ import choose_cases, main, report_lines
from benchmarks.parity.bench import Comparison
from benchmarks.parity.case import all_cases
from tests.export.small_checkpoint import needs_export

CASE = next(all_cases())
FACTS = {"device": {"cpu": "a processor", "usable_cores": 2, "os": "Linux"}, "versions": {"numpy": "2"}, "command": "python -m ..."}


def test_every_family_is_compared_with_its_schedulers_and_no_case_twice() -> None:
    cases = choose_cases(None, quick=False)
    names = [case.name for case in cases]
    assert len(set(names)) == len(names) > 1000
    assert {case.model.family for case in cases} == {"sd1", "sd2", "sdxl"}
    assert choose_cases("sdxl-dmd2.*4 steps$", quick=False)[0].model.timesteps[4] == (999, 749, 499, 249)
    assert len({case.scheduler.name for case in choose_cases("^sd15,", quick=False)}) > 35
    assert not choose_cases("no such case", quick=True)


@pytest.mark.parametrize(
    ("found", "verdict", "is_good"),
    [
        (Comparison(case=CASE, largest=2, spread=30.0), "equal", True),
        (Comparison(case=CASE, largest=3, spread=30.0), "DIFFERENT", False),
        (Comparison(case=CASE, largest=0, spread=1.0), "FAILED", False),
        (Comparison(case=CASE, largest=0, spread=90.0, saturated=0.5), "FAILED", False),
        (Comparison(case=CASE, error="ConfigError: why"), "FAILED", False),
        (Comparison(case=CASE, not_run="diffusers cannot"), "not compared", True),
    ],
)
def test_a_row_says_whether_images_are_equal_and_prove_something(found: Comparison, verdict: str, is_good: bool) -> None:
    assert (found.verdict, found.is_good) == (verdict, is_good)
    lines = report_lines([found], FACTS, 1.0)
    assert re.search(f"{re.escape(CASE.name)}.*{verdict}", "\n".join(lines))
    assert lines[-1] == f"1 cases in 1 s: 1 {verdict}"


def test_a_pattern_that_matches_nothing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "no such case"]) == 2
    assert "no case's name matches" in capsys.readouterr().err


@needs_export[0]
@needs_export[1]
@needs_export[2]
def test_a_sample_of_the_cases_is_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--json", "--folder", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) > 5
    assert max(line["difference"] for line in lines) <= 2
