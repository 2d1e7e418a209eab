"""F22: sparse tables: every label counts, missing ones are noted, and a table that compares no candidates is refused before the work."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run, invoke
from tests.export.router.label_text import write_labels

NAMES = ("tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8")


def write_sparse(count: int, share: float, *, first: int = 0) -> None:
    """labels.csv with this share of the cells, chosen at random, and all of the first candidate's."""
    header, *rows = write_labels(NAMES, first=first, count=count, seeds=1).splitlines()
    drawn = random.Random(0)
    Path("labels.csv").write_text("\n".join([header, *(row for row in rows if drawn.random() < share or NAMES[0] in row)]) + "\n")


@pytest.fixture
def fit(run: Run, built: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`costroute-rt fit-router` in an empty folder."""
    arguments = ("--bundle", tiny_bundle, "--labels", "labels.csv", "--output", "routed")
    return lambda *more: run("fit-router", *arguments, *more)


@pytest.fixture
def forbid_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if prompts are read by the text encoder, an engine is built or an estimator is fitted."""
    from costroute_rt.export.router import job

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("long work has begun")

    for name in ("read_states", "fit_router", "build_engines", "evaluate", "open_pool_router"):
        monkeypatch.setattr(job, name, refuse)


@pytest.mark.usefixtures("forbid_long_work")
def test_f22_a_table_that_compares_no_candidates_is_refused_before_the_work(fit: Run) -> None:
    rows = [f"prompt number {index},{NAMES[index % 4]},0.5" for index in range(60)]
    Path("labels.csv").write_text("\n".join(["prompt,candidate,score", *rows]) + "\n")
    done = fit()
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert "only 0 of 60 prompts are labelled for two candidates or more, but only those show which candidate is better" in line
    assert "label more candidates for the same prompts" in line
    assert not Path("routed").exists()


def test_f22_pairs_of_candidates_are_learned_from(run: Run, fit: Run) -> None:
    """Each prompt shows two candidates, as people compare them: no prompt is complete."""
    header, *rows = write_labels(NAMES, count=60, seeds=1).splitlines()
    drawn = random.Random(1)
    by_prompt = [rows[start : start + 4] for start in range(0, len(rows), 4)]
    Path("labels.csv").write_text("\n".join([header, *(row for four in by_prompt for row in drawn.sample(four, 2))]) + "\n")
    done = fit("--encoder", "hashed")
    assert done.exit_code == 0, done.stderr
    assert "note: 0 of 60 prompts are labelled for every candidate (120 of 240 cells); the others count too" in done.stderr
    assert "routes on prompt" in done.stdout
    judged = run("eval-router", "--bundle", "routed", "--labels", "labels.csv")
    assert judged.exit_code == 0, judged.stderr
    assert "60 of them with missing labels" in judged.stdout


def test_f22_a_table_with_some_gaps_is_used_with_a_note(run: Run, fit: Run) -> None:
    write_sparse(40, 0.93)
    done = fit("--encoder", "hashed")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"note: \d+ of 40 prompts are labelled .* \(\d+ of 160 cells\); the others count too", done.stderr)
    judged = run("eval-router", "--bundle", "routed", "--labels", "labels.csv")
    assert judged.exit_code == 0, judged.stderr
    assert re.search(r"note: \d+ of 40 prompts", judged.stderr)


def test_f22_a_complete_table_has_no_note(fit: Run) -> None:
    for count in (3, 30):
        Path("labels.csv").write_text(write_labels(NAMES, count=count, seeds=1))
        done = fit("--encoder", "hashed", "--force")
        assert done.exit_code == 0, done.stderr
        assert "labelled for every candidate" not in done.stderr


def test_f22_few_prompts_with_a_gap_go_by_averages(fit: Run) -> None:
    text = write_labels(NAMES, count=5, seeds=1).rstrip("\n")
    Path("labels.csv").write_text(text.rpartition("\n")[0] + "\n")
    done = fit("--encoder", "hashed")
    assert done.exit_code == 0, done.stderr
    assert "note: 4 of 5 prompts are labelled for every candidate (19 of 20 cells)" in done.stderr
    assert "routes on average" in done.stdout


def test_f22_the_refusal_names_the_command(run: Run, built: Path, tiny_bundle: Path) -> None:
    rows = [f"prompt number {index},{NAMES[index % 4]},0.5" for index in range(60)]
    Path("labels.csv").write_text("\n".join(["prompt,candidate,score", *rows]) + "\n")
    done = invoke("fit-router", "--bundle", tiny_bundle, "--labels", "labels.csv", "--output", "routed")
    assert done.stderr.rstrip().endswith("(costroute-rt label)")
