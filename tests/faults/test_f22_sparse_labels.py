"""F22: only prompts labelled for every candidate count, which was silent; now a sparse table is refused or noted before the long work."""

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
@pytest.mark.parametrize(("count", "share"), [(40, 0.6), (200, 0.3), (20, 0.95), (1000, 0.2)])
def test_f22_a_sparse_table_is_refused_before_the_work(fit: Run, count: int, share: float) -> None:
    write_sparse(count, share)
    done = fit()
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert f" of {count} prompts are labelled for every candidate" in line
    assert "only those count and 20 are needed" in line
    assert "label the missing ones, or remove prompts and candidates with few labels" in line
    assert not Path("routed").exists()


@pytest.mark.usefixtures("forbid_long_work")
def test_f22_pairs_of_candidates_are_refused(fit: Run) -> None:
    """Each prompt shows two candidates, as people compare them: no prompt is complete."""
    drawn = random.Random(1)
    rows = [f"prompt number {index},{name},{drawn.random():.2f}" for index in range(60) for name in drawn.sample(NAMES, 2)]
    Path("labels.csv").write_text("\n".join(["prompt,candidate,score", *rows]) + "\n")
    done = fit()
    assert done.exit_code == 2
    assert "only 0 of 60 prompts are labelled for every candidate (120 of 240 labels)" in done.stderr


@pytest.mark.usefixtures("forbid_long_work")
def test_f22_eval_router_refuses_it_too(run: Run, built: Path, tiny_bundle: Path) -> None:
    write_sparse(40, 0.6)
    done = run("eval-router", "--bundle", tiny_bundle, "--labels", "labels.csv")
    assert done.exit_code == 2, done.output
    assert " of 40 prompts are labelled for every candidate" in done.stderr


def test_f22_a_table_with_some_gaps_is_used_with_a_note(run: Run, fit: Run) -> None:
    write_sparse(40, 0.93)
    done = fit("--encoder", "hashed")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"note: \d+ of 40 prompts are labelled .* \(\d+ of 160 labels\); the gain is measured on", done.stderr)
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
    assert "note: 4 of 5 prompts are labelled for every candidate (19 of 20 labels)" in done.stderr
    assert "routes on average" in done.stdout


def test_f22_the_refusal_names_the_command(run: Run, built: Path, tiny_bundle: Path) -> None:
    write_sparse(40, 0.6)
    done = invoke("fit-router", "--bundle", tiny_bundle, "--labels", "labels.csv", "--output", "routed")
    assert done.stderr.rstrip().endswith("(costroute-rt label)")
