"""`costroute-rt fit-router` on the tiny bundle: from any table of labels to a bundle that works, or one line that says why not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.cli.label_choice import read_weights
from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle
from tests.cli.conftest import Run
from tests.export.router.label_text import write_labels

NAMES = ("tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8")
SCORER = "def brightness(pixels, prompt):\n    return pixels.mean() / 255\n"


@pytest.fixture
def fit(run: Run, built: Path, tiny_bundle: Path) -> Run:
    """`costroute-rt fit-router` by words alone, in an empty folder."""
    arguments = ("--bundle", tiny_bundle, "--labels", "labels.csv", "--output", "routed", "--encoder", "hashed")
    return lambda *more: run("fit-router", *arguments, *more)


@pytest.fixture
def user_scorer(run: Run) -> Iterator[str]:
    """A scorer in a module of the working folder."""
    Path("fit_router_scorer.py").write_text(SCORER)
    yield "fit_router_scorer:brightness"
    sys.modules.pop("fit_router_scorer", None)


def test_label_fit_and_eval_in_a_row(run: Run, built: Path, tiny_bundle: Path, user_scorer: str) -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    for name, first, count in (("fit", 0, 24), ("heldout", 24, 12)):
        rows = [f"p{index},a house by {index} trees,{'ab'[index % 2]}" for index in range(first, first + count)]
        Path(f"{name}-prompts.csv").write_text("prompt_id,prompt,category\n" + "\n".join(rows) + "\n")
        options = ("--prompts", f"{name}-prompts.csv", "--labels", f"{name}.csv", "--scorer", user_scorer, "--seeds", 2)
        labelled = run("label", "--bundle", tiny_bundle, *options)
        assert labelled.stdout == f"{name}.csv: {count * 8} rows added, 0 existed, {count} prompts\n", labelled.stderr
    fitted = run("fit-router", "--bundle", tiny_bundle, "--labels", "fit.csv", "--category", "category", "--output", "routed")
    assert fitted.exit_code == 0, fitted.stderr
    assert "routes on " in fitted.stdout
    judged = run("eval-router", "--bundle", "routed", "--labels", "heldout.csv", "--category", "category", "--html", "r.html", "--json")
    assert judged.exit_code == 0, judged.stderr
    found = json.loads(judged.stdout)
    assert found["prompts"] == 12
    assert [row["name"] for row in found["candidates"]] == list(NAMES)
    assert Path("r.html").read_text(encoding="utf-8").count("data:image/png") == 8
    made = run("gen", "a house by trees", "--bundle", "routed", "--max-ms", 60000, "-o", "out.png")
    assert made.exit_code == 0, made.stderr


@pytest.mark.parametrize("encoder", ["hashed", "states"])
def test_a_router_that_gains_routes_by_the_prompt(run: Run, fit: Run, encoder: str) -> None:
    Path("labels.csv").write_text(write_labels(NAMES))
    done = fit("--encoder", encoder, "--json")
    assert done.exit_code == 0, done.stderr
    fitted = json.loads(done.stdout)
    assert fitted["routes_on"] == "prompt"
    assert fitted["cross_validation"]["gain"]["low"] > 0
    for prompt, best in (("a red house number 0", NAMES[0]), ("a blue boat number 1 at night with snow and a moon", NAMES[3])):
        route = json.loads(run("route", prompt, "--bundle", "routed", "--json").stdout)
        assert route["router"]["trust"] > 0.5
        if encoder == "hashed":  # states of the tiny text encoder, whose weights are random, tell less of a single prompt
            assert route["chosen"] == best, route


def test_the_table_says_what_was_found(fit: Run) -> None:
    Path("labels.csv").write_text(write_labels(NAMES))
    done = fit("--category", "category")
    assert "gain on kinds of prompts never seen: " in done.stdout
    assert done.stdout.endswith("wrote routed\n")
    assert max(map(len, done.stdout.splitlines()[:-3])) <= 100


def test_luck_hardly_counts(run: Run, fit: Run) -> None:
    Path("labels.csv").write_text(write_labels(NAMES, signal=0.0))
    fitted = json.loads(fit("--json").stdout)
    assert fitted["cross_validation"]["shrinkage"]["factor"] < 0.5
    assert run("route", "a house", "--bundle", "routed").exit_code == 0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_prompts_go_by_averages(run: Run, fit: Run, count: int) -> None:
    Path("labels.csv").write_text(write_labels(NAMES, count=count))
    fitted = json.loads(fit("--json").stdout)
    assert fitted["routes_on"] == "average"
    assert fitted["reason"].startswith(f"{count} prompts are labelled for two candidates or more")
    assert run("eval-router", "--bundle", "routed", "--labels", "labels.csv").exit_code == 0


def test_a_pool_of_one_goes_by_averages(run: Run, fit: Run, tiny_bundle: Path) -> None:
    shutil.copytree(tiny_bundle, "single")
    manifest = json.loads(Path("single/manifest.json").read_text())
    manifest["pool"] = manifest["pool"][-1:]
    manifest["quality"]["candidates"] = {NAMES[3]: manifest["quality"]["candidates"][NAMES[3]]}
    seal_bundle(Path("single"), {name: value for name, value in manifest.items() if name not in ("format", "format_version", "files")})
    Path("labels.csv").write_text(write_labels(NAMES[3:]))
    done = fit("--bundle", "single", "--json")
    assert done.exit_code == 0, done.stderr
    assert "only one candidate, tiny-base@8" in json.loads(done.stdout)["reason"]
    assert run("eval-router", "--bundle", "routed", "--labels", "labels.csv").exit_code == 0


def test_labels_of_unknown_candidates_are_left_out_and_named(fit: Run) -> None:
    Path("labels.csv").write_text(write_labels((*NAMES, "huge@50"), count=30))
    done = fit("--json")
    assert done.exit_code == 0
    assert "labels of huge@50 are left out" in done.stderr
    assert list(json.loads(done.stdout)["labels"]["candidates"]) == list(NAMES)


HEADER = "prompt,candidate,score\n"
BAD = {
    "no file": (None, "it does not exist"),
    "empty file": ("", "line 1: the file is empty"),
    "no rows": (HEADER, "it has no labels"),
    "NaN": (HEADER + "a house,tiny-turbo@1,nan\n", "line 2: score is nan, which is not finite"),
    "infinite": (HEADER + "a house,tiny-turbo@1,inf\n", "line 2: score is inf, which is not finite"),
    "no number": (HEADER + "a house,tiny-turbo@1,good\n", "line 2: score is 'good', which is not a number"),
    "duplicates": (HEADER + "a house,tiny-turbo@1,1\n" * 2, "lines 2 and 3 have the same label"),
    "one candidate only": (write_labels(NAMES[:1], count=3), "it has no labels of tiny-turbo@2, tiny-base@4, tiny-base@8"),
    "unknown candidates only": (write_labels(("a", "b"), count=3), "it has no labels of tiny-turbo@1"),
    "no such column": ("prompt,candidate\na,b\n", "it has no column score"),
    "a picture": ("\x89PNG\r\n\x1a\n\x00\x00", "labels.csv"),
    "far too long a prompt": (write_labels(NAMES, count=1).replace("house", "house " * 3000), "labelled prompt 1"),
}


@pytest.mark.parametrize(("text", "problem"), BAD.values(), ids=BAD.keys())
def test_unusable_labels_are_reported_in_one_line(fit: Run, text: str | None, problem: str) -> None:
    if text is not None:
        Path("labels.csv").write_bytes(text.encode("latin-1"))
    done = fit("--encoder", "states")
    assert done.exit_code == 2, done.output
    assert problem in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not done.stdout
    assert not Path("routed").exists()


def test_an_output_that_exists_is_replaced_only_by_force(fit: Run) -> None:
    Path("labels.csv").write_text(write_labels(NAMES, count=3))
    assert fit().exit_code == 0
    refused = fit()
    assert refused.exit_code == 7
    assert "it exists already (--force replaces it)" in refused.stderr
    assert fit("--force").exit_code == 0
    assert Bundle.open("routed").router is not None


def test_what_is_no_bundle_is_not_replaced(fit: Run) -> None:
    Path("labels.csv").write_text(write_labels(NAMES, count=3))
    Path("routed").mkdir()
    Path("routed/letter.txt").write_text("dear")
    done = fit("--force")
    assert done.exit_code == 7
    assert "it is not a bundle, so it is not replaced" in done.stderr
    assert Path("routed/letter.txt").read_text() == "dear"


def write_votes(texts: Sequence[str]) -> str:
    """Votes for the first candidate where the prompt is short, and for the last where it is long; a tenth of them the other way."""
    rows, rng = ["prompt,candidate_a,candidate_b,winner"], np.random.default_rng(0)
    for text in texts:
        for _ in range(12):
            one, other = sorted(rng.permutation(4)[:2])
            is_last = text.endswith("moon") != (rng.uniform() < 0.1)
            rows.append(f"{text},{NAMES[one]},{NAMES[other]},{NAMES[other if is_last else one]}")
    return "\n".join(rows) + "\n"


def labelled_texts() -> list[str]:
    return list(dict.fromkeys(row.split(",")[1] for row in write_labels(NAMES).splitlines()[1:]))


def test_votes_alone_make_a_router(run: Run, built: Path, tiny_bundle: Path) -> None:
    texts = labelled_texts()
    Path("votes.csv").write_text(write_votes(texts))
    options = ("--bundle", tiny_bundle, "--votes", "votes.csv", "--output", "routed", "--encoder", "hashed")
    done = run("fit-router", *options, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["routes_on"] == "prompt"
    assert found["labels"]["votes"]["votes"] == 80 * 12
    assert [json.loads(run("route", text, "--bundle", "routed", "--json").stdout)["chosen"] for text in texts[:2]] == [NAMES[0], NAMES[3]]
    judged = run("eval-router", "--bundle", "routed", "--votes", "votes.csv")
    assert judged.exit_code == 0, judged.stderr


def test_scores_with_weights_raters_and_votes_together(run: Run, fit: Run) -> None:
    rows = write_labels(NAMES, seeds=1).splitlines()
    scored = [f"{rows[0]},score_other,judge"]
    scored += [f"{row},{3 + 2 * float(row.split(',')[5])},{name}" for row in rows[1:] for name in ("ann", "bob")]
    Path("labels.csv").write_text("\n".join(scored) + "\n")
    Path("votes.csv").write_text(write_votes(labelled_texts()))
    columns = ("--score", "score=2", "--score", "score_other", "--rater", "judge", "--category", "category")
    done = fit(*columns, "--votes", "votes.csv", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["routes_on"] == "prompt"
    assert (found["labels"]["score"], found["labels"]["raters"]) == ("score=2, score_other=1", 2)
    Path("half.csv").write_text("\n".join(scored[: len(scored) // 2]) + "\n")  # has other means and spreads
    judged = run("eval-router", "--bundle", "routed", "--labels", "half.csv", *columns, "--json")
    assert judged.exit_code == 0, judged.stderr
    assert json.loads(judged.stdout)["labels"]["scales"] == found["labels"]["scales"]
    other = run("eval-router", "--bundle", "routed", "--labels", "labels.csv", "--rater", "judge")
    assert "note: the router was fitted to score=2, score_other=1, and is judged by score" in other.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--score", "clip"), "it has no column clip"),
        (("--score", "score=0"), "weights of which one is above 0"),
        (("--score", "score", "--score", "score=2"), "--score names score twice"),
        (("--score", "=1"), "--score =1 names no column"),
        (("--rater", "judge"), "it has no column judge"),
        (("--votes", "labels.csv"), "it looks like a table of scores: give it as labels"),
        (("--votes", "none.csv"), "it does not exist"),
    ],
)
def test_columns_and_files_that_do_not_exist_are_named(fit: Run, options: tuple[str, ...], problem: str) -> None:
    Path("labels.csv").write_text(write_labels(NAMES))
    done = fit(*options)
    assert done.exit_code == 2
    assert problem in done.stderr
    assert not Path("routed").exists()


def test_a_table_of_scores_or_votes_is_needed(run: Run, built: Path, tiny_bundle: Path) -> None:
    options = ("--bundle", tiny_bundle, "--output", "routed")
    assert "give --labels FILE, --votes FILE, or both" in run("fit-router", *options).stderr
    assert "--score and --rater name columns of --labels FILE" in run("fit-router", *options, "--votes", "v.csv", "--score", "x").stderr


@pytest.mark.parametrize(
    ("texts", "weights"), [(("a", "b=0.5"), {"a": 1, "b": 0.5}), (("a=b", "c=d=2"), {"a=b": 1, "c=d": 2}), (("a = 3",), {"a": 3})]
)
def test_weights_follow_the_last_equals_sign(texts: tuple[str, ...], weights: dict[str, float]) -> None:
    assert read_weights(texts) == weights
