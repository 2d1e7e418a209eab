"""`costroute-rt fit-router` on the tiny bundle: from any table of labels to a bundle that works, or one line that says why not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
