"""`costroute-rt label` on the tiny bundle, with a scorer of the user's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from costroute_rt.cli.label import describe
from costroute_rt.export.router.labelling import Progress
from costroute_rt.export.router.labels import LabelTable
from tests.cli.conftest import Run

SCORER = """
calls = 0
stop_at = None

def mean(pixels, prompt):
    global calls
    calls += 1
    if calls == stop_at:
        raise KeyboardInterrupt
    return float("nan") if prompt == "nan" else pixels.mean() / 255
"""


@pytest.fixture
def label(run: Run, built: Path, tiny_bundle: Path) -> Iterator[Run]:
    """`costroute-rt label` in a folder with three prompts and a scorer."""
    Path("label_scorer.py").write_text(SCORER)
    Path("prompts.csv").write_text("prompt,category\na red house,a\na lake,b\nbirds,b\n")
    arguments = ("--bundle", tiny_bundle, "--labels", "labels.csv", "--scorer", "label_scorer:mean", "--seeds", 2)
    yield lambda *more: run("label", *arguments, *more)
    sys.modules.pop("label_scorer", None)


def test_labels_are_made_and_a_stopped_run_goes_on(label: Run) -> None:
    first = label("--prompts", "prompts.csv", "--candidate", "tiny-turbo@1", "--candidate", "tiny-base@4")
    assert first.exit_code == 0, first.stderr
    assert first.stdout == "labels.csv: 12 rows added, 0 existed, 3 prompts\n"
    assert "12 of 12 rows" in first.stderr
    sys.modules["label_scorer"].stop_at = 12 + 5  # type: ignore[attr-defined]
    stopped = label("--prompts", "prompts.csv")
    assert stopped.exit_code == 130
    assert "labels.csv has every row so far: the same command continues it" in stopped.stderr
    assert len(LabelTable.open("labels.csv")) == 16
    done = label("--prompts", "prompts.csv", "--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert (report["written"], report["kept"], report["refused"]) == (8, 16, {})
    cells = LabelTable.open("labels.csv", category="category").cells()
    assert (cells.count == 2).all()
    assert cells.mean.shape == (3, 4)
    assert (cells.cost_ms > 0).all()


def test_anchors_need_no_prompts(label: Run) -> None:
    assert label("--prompts", "prompts.csv", "--candidate", "tiny-turbo@1").exit_code == 0
    done = label("--candidate", "tiny-base@8", "--anchors", 2)
    assert done.stdout == "labels.csv: 4 rows added, 0 existed, 2 prompts\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "problem"),
    [
        ((), 2, "give --prompts FILE"),
        (("--anchors", 3), 2, "--anchors needs --candidate NAME"),
        (("--prompts", "none.csv"), 2, "it does not exist"),
        (("--prompts", "prompts.csv", "--candidate", "huge@9"), 2, "candidate is 'huge@9': expected one of tiny-turbo@1"),
        (("--prompts", "prompts.csv", "--scorer", "nothing"), 2, "expected postcard, recall, cleanness, clip:FOLDER"),
        (("--prompts", "prompts.csv", "--scorer", "postcard"), 4, "use a bundle of the postcard family"),
        (("--prompts", "odd.csv"), 2, "scorer mean returned nan for 'nan' (tiny-turbo@1, seed 0)"),
        (("--prompts", "prompts.csv", "--labels", "no/labels.csv"), 7, "no such folder"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(label: Run, arguments: tuple[object, ...], exit_code: int, problem: str) -> None:
    Path("odd.csv").write_text("prompt\nnan\n")
    done = label(*arguments)
    assert done.exit_code == exit_code
    assert problem in done.stderr.splitlines()[-1]
    assert not done.stdout


def test_a_prompt_that_is_too_long_is_reported_and_the_others_are_labelled(label: Run) -> None:
    Path("prompts.csv").write_text(f"prompt_id,prompt\np0,a lake\np1,{'very ' * 2000}long\n")
    done = label("--prompts", "prompts.csv", "--candidate", "tiny-turbo@1")
    assert done.exit_code == 2
    assert "error: prompt p1: the prompt has 10,004 characters" in done.stderr
    assert len(LabelTable.open("labels.csv")) == 2


@pytest.mark.parametrize(("seconds", "left"), [(12, "12 s"), (900, "15 min 00 s"), (9000, "2 h 30 min")])
def test_progress_says_how_long_it_will_take(seconds: float, left: str) -> None:
    assert describe(Progress(3, 10, seconds)) == f"3 of 10 rows, {left} left"
