"""The fuzz test notices what goes wrong, draws every option, and repeats a case exactly."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import click
import pytest

from costroute_rt.error import ConfigError
from tests.fuzz import fuzz
from tests.fuzz.api import attempt
from tests.fuzz.case import Case, invoke
from tests.fuzz.command_line import COMMANDS, draw_command
from tests.fuzz.mutation import mutate_json
from tests.fuzz.place import Place


@pytest.fixture
def case(tmp_path: Path) -> Case:
    template = tmp_path / "template"
    for name in ("bundle", "routed", "user", "cwd", "tmp", "odd", "home"):
        (template / name).mkdir(parents=True)
    return Case(Random(0), template, Place.make(template, tmp_path / "case"), lambda text: None)


@pytest.mark.parametrize("output", ["error: unexpected ValueError: x (a bug; please report it)", "x\nTraceback (most recent call last):\n"])
def test_bugs_and_tracebacks_are_problems(case: Case, output: str) -> None:
    case.check_output("error: no such file")
    assert case.problems == []
    case.check_output(output)
    assert len(case.problems) == 1


def test_exit_codes_that_are_not_documented_are_problems(case: Case) -> None:
    for code in (0, 2, 9, 130):
        case.check_code(code, "")
    assert case.problems == []
    case.check_code(-11, "")
    case.check_code(10, "")
    assert len(case.problems) == 2


def test_a_command_that_raises_is_a_problem(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke(case, ["doctor", "--help"]) is not None
    assert case.problems == []

    def fail(**_: Any) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(COMMANDS[("info",)], "callback", fail)
    (case.place.root / "cwd/image.png").write_bytes(b"x")
    invoke(case, ["info", "image.png"])
    assert "unexpected RuntimeError: unforeseen (a bug" in case.problems[0]


def test_errors_of_calls_other_than_ours_are_problems(case: Case) -> None:
    def ours() -> None:
        raise ConfigError("x", 1, "2")

    def others() -> None:
        raise KeyError("x")

    attempt(case, ours, None)
    assert case.problems == []
    attempt(case, others, None)
    assert "KeyError: 'x'" in case.problems[0]


def test_files_in_wrong_places_are_problems(case: Case) -> None:
    assert case.place.problems(case.template, may_change=set()) == []
    (case.place.root / "cwd" / ".costroute-0123456789abcdef.tmp").touch()
    (case.place.root / "bundle" / "x").touch()
    (case.place.root / "elsewhere").touch()
    found = case.place.problems(case.template, may_change=set())
    assert [each.split(":")[0] for each in found] == ["unexpected entry beside the case's folders", "left behind", "changed"]


def test_every_option_of_every_command_is_drawn() -> None:
    drawn: dict[tuple[str, ...], set[str]] = {path: set() for path in COMMANDS}
    for number in range(400):
        for path in COMMANDS:
            drawn[path].update(draw_command(Random(number), ["odd"], ["0" * 32], path))
    for path, command in COMMANDS.items():
        words = {word.split("=")[0] for word in drawn[path]}
        missing = [each.name for each in command.params if isinstance(each, click.Option) and words.isdisjoint(each.opts)]
        assert missing == [], path


def test_a_case_is_the_same_each_time() -> None:
    first, again, other = (draw_command(Random(f"7/{number}"), ["odd"], ["0" * 32]) for number in (1, 1, 2))
    assert first == again != other


class FakeWorker:
    """Reports what it is given, once, and then that it has ended, or nothing."""

    errors = "Segmentation fault"

    def __init__(self, *reports: dict[str, Any], ends: bool) -> None:
        self._answers: list[list[dict[str, Any]] | None] = [list(reports), None if ends else []]

    def read(self, timeout_s: float) -> list[dict[str, Any]] | None:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def stop(self, number: int = 9) -> int:
        return -11

    def last_errors(self) -> str:
        return self.errors


@pytest.mark.parametrize(("ends", "problem"), [(True, "the process ended with -11: Segmentation fault"), (False, "hangs for")])
def test_a_worker_that_dies_or_hangs_is_a_failure(ends: bool, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LIMIT_S", 20.0 if ends else -1.0)
    summary = fuzz.Summary(7)
    worker: Any = FakeWorker({"start": 3, "kind": "api"}, {"note": "generate()"}, ends=ends)
    assert fuzz._follow(worker, summary, 3, float("inf"), None, lambda failure: None) == 4
    (failure,) = summary.failures
    assert (failure.number, failure.kind, failure.notes) == (3, "api", ["generate()"])
    assert failure.problems[0].startswith(problem)
    assert "python -m tests.fuzz --seed 7 --only 3" in failure.describe()


@pytest.mark.parametrize(
    ("kind", "place", "is_known"), [("graphs", "onnxruntime", True), ("graphs", "numpy", False), ("api", "onnxruntime", False)]
)
def test_crashes_of_inference_libraries_at_damaged_graphs_are_counted(kind: str, place: str, is_known: bool) -> None:
    summary = fuzz.Summary(7)
    worker: Any = FakeWorker({"start": 3, "kind": kind}, ends=True)
    worker.errors = f'Current thread 0x1 (most recent call first):\n  File "/x/site-packages/{place}/y.py", line 1'
    fuzz._follow(worker, summary, 3, float("inf"), None, lambda failure: None)
    assert (len(summary.crashes), len(summary.failures)) == ((1, 0) if is_known else (0, 1))
    assert ("crashes of inference libraries" in summary.describe()) == is_known


def test_damages_to_json_depend_on_the_random_numbers_alone_and_end() -> None:
    data = json.dumps({"a": {"b": [1, {"c": "x"}], "d": None}, "e": [[], {}]}).encode()
    first = [mutate_json(Random(number), data) for number in range(2000)]
    assert [mutate_json(Random(number), data) for number in range(2000)] == first
    assert len(set(first)) > 300
