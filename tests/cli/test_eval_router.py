"""`costroute-rt eval-router` on the tiny bundle with a router that knows long prompts from short ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, invoke
from tests.export.router.label_text import write_labels

NAMES = ("tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8")


@pytest.fixture(scope="module")
def routed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a router fitted to 80 prompts; labels.csv beside it."""
    folder = tmp_path_factory.mktemp("routed")
    (folder / "labels.csv").write_text(write_labels(NAMES))
    options = ("--labels", folder / "labels.csv", "--encoder", "hashed", "--output", folder / "bundle")
    done = invoke("fit-router", "--bundle", tiny_bundle, *options)
    assert done.exit_code == 0, done.output
    return folder / "bundle"


@pytest.fixture
def judge(run: Run, built: Path, routed: Path) -> Run:
    """`costroute-rt eval-router` on 40 other prompts, in the folder they are in."""
    Path("heldout.csv").write_text(write_labels(NAMES, first=80, count=40))
    return lambda *more: run("eval-router", "--bundle", routed, "--labels", "heldout.csv", *more)


def test_a_router_that_knows_is_judged_so(judge: Run) -> None:
    done = judge("--json", "--category", "category")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["figures"]["router"]["area"]["low"] > 0
    assert found["figures"]["router"]["qnc"]["value"] < 0.7
    assert found["oracle"]["gain"] == pytest.approx(found["figures"]["router"]["gain"]["value"], abs=0.01)
    assert found["reachable_share"] == pytest.approx(1, abs=0.1)
    spent = {row["name"]: row["mean_ms"] for row in found["categories"]}
    assert spent["long"] > spent["short"]
    assert [row["name"] for row in found["ms"]] == list(NAMES)
    assert found["labels"]["file"] == "heldout.csv"


def test_the_tables_fit_a_terminal(judge: Run) -> None:
    done = judge("--category", "category")
    assert done.exit_code == 0, done.stderr
    *tables, reason = done.stdout.splitlines()
    assert max(map(len, tables)) <= 100
    assert reason.startswith("routes on prompt: ")
    shares = done.stdout.split("at a mean of")[1].splitlines()
    assert [line.split("@")[0] for line in shares[2:6]] == ["tiny-turbo", "tiny-turbo", "tiny-base", "tiny-base"]
    assert shares[2].split()[2] == "100"
    assert "oracle by other seeds' labels: gain +0.0" in done.stdout


def test_the_page_shows_routes_with_their_images(judge: Run) -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    done = judge("--html", "pages/report.html")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.endswith("wrote pages/report.html\n")
    page = Path("pages/report.html").read_text(encoding="utf-8")
    assert page.index("Routed to a cheap candidate") < page.index("tiny-turbo@1, ") < page.index("Routed to an expensive one")
    assert page.count("data:image/png") == 8


def test_labels_it_was_fitted_to_are_noted(judge: Run, routed: Path) -> None:
    done = judge("--labels", routed.with_name("labels.csv"))
    assert done.exit_code == 0
    assert "note: the router was fitted to these labels" in done.stderr


def test_labels_without_costs_are_judged_by_quality_alone(judge: Run) -> None:
    Path("heldout.csv").write_text(write_labels(NAMES, first=80, count=40, costs=False))
    done = judge("--category", "category")
    assert done.exit_code == 0, done.stderr
    assert "at a mean of" not in done.stdout
    assert "gain over the best" in done.stdout
    assert json.loads(judge("--json").stdout)["figures"]["router"].keys() == {"gain"}


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_prompts_are_judged_too(judge: Run, count: int) -> None:
    Path("heldout.csv").write_text(write_labels(NAMES, first=80, count=count, seeds=1))
    done = judge("--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["prompts"] == count


BAD = {
    "empty file": ("", 2, "the file is empty"),
    "NaN": ("prompt,candidate,score\na,tiny-turbo@1,nan\n", 2, "score is nan, which is not finite"),
    "one candidate only": (write_labels(NAMES[:1], count=3), 2, "it has no labels of tiny-turbo@2"),
    "no prompt labelled for all": (
        "prompt,candidate,score\n" + "".join(f"prompt {name},{name},1\n" for name in NAMES),
        2,
        "only 0 of 4 prompts are labelled for two candidates or more",
    ),
    "no such category": (write_labels(NAMES, count=2).replace("category", "kind"), 2, "it has no column category"),
}


@pytest.mark.parametrize(("text", "exit_code", "problem"), BAD.values(), ids=BAD.keys())
def test_unusable_labels_are_reported_in_one_line(judge: Run, text: str, exit_code: int, problem: str) -> None:
    Path("heldout.csv").write_text(text)
    done = judge("--category", "category") if "category" in problem else judge()
    assert done.exit_code == exit_code, done.output
    assert problem in done.stderr.splitlines()[-1]
    assert not done.stdout


def test_a_bundle_without_a_router_is_reported(judge: Run, tiny_bundle: Path) -> None:
    done = judge("--bundle", tiny_bundle)
    assert done.exit_code == 4
    assert done.stderr.splitlines()[-1].endswith("it has no router; fit one to it (costroute-rt fit-router)")


def test_a_page_that_cannot_be_written_is_reported(judge: Run) -> None:
    Path("file").write_text("")
    done = judge("--html", "file/report.html")
    assert done.exit_code == 7
    assert done.stderr.splitlines()[-1].startswith("error: ")
