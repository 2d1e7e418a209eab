"""`costroute-rt fit-router --extend`: one candidate more for a router, by labels of a few prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.routing.router_bundle import open_pool_router
from tests.cli.conftest import Run
from tests.export.router.label_text import write_labels
from tests.pools import write_pool_of
from tests.tiny_bundle import write_tiny_bundle

NAMES = ("tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8")
NEW = "twin@2"


def without(text: str, name: str, most: int = 0) -> str:
    """The table with labels of `name` on the first so many prompts only."""
    head, *rows = text.splitlines()
    kept = [row for row in rows if f",{name}," not in row or int(row.split(",")[0][1:]) < most]
    return "\n".join([head, *kept]) + "\n"


@pytest.fixture
def pools(run: Run, built: Path, tiny_bundle: Path, twin_bundle: Path) -> Run:
    """A pool with a router of four candidates, and a larger one without; `fit-router --extend` of the larger one."""
    write_pool_of(Path("desk.pool"), tiny_bundle)
    write_pool_of(Path("larger.pool"), tiny_bundle, twin_bundle)
    text = write_labels((*NAMES, NEW))
    Path("old.csv").write_text(without(text, NEW))
    Path("new.csv").write_text(without(text, NEW, most=40))
    fitted = run("fit-router", "--pool", "desk.pool", "--labels", "old.csv", "--encoder", "hashed")
    assert fitted.exit_code == 0, fitted.stderr
    return lambda *more: run("fit-router", "--pool", "larger.pool", "--extend", "desk.pool", *more)


def test_a_candidate_is_added_and_the_others_stay(run: Run, pools: Run) -> None:
    done = pools("--labels", "new.csv")
    assert done.exit_code == 0, done.stderr
    assert f"added {NEW} by labels of 40 prompts" in done.stdout
    before, after = open_pool_router(Pool.open("desk.pool")), open_pool_router(Pool.open("larger.pool"))
    places = [[row["name"] for row in after.pool].index(name) for name in (row["name"] for row in before.pool)]
    prompts = ("a red house", "a blue boat at night with snow and a moon")
    for found, expected in zip(after.estimate(prompts, None)[:2], before.estimate(prompts, None)[:2], strict=True):
        assert found[:, places].tobytes() == expected.tobytes()
    routed = run("route", "a blue boat at night with snow and a moon", "--pool", "larger.pool")
    assert f"{NEW} on 40 anchor prompts" in routed.stdout
    assert run("gen", "a blue boat", "--pool", "larger.pool", "-o", "out.png").exit_code == 0
    assert run("eval-router", "--pool", "larger.pool", "--labels", "new.csv").exit_code == 0


def test_without_labels_of_it_the_estimate_is_a_guess_and_says_so(run: Run, pools: Run) -> None:
    done = pools("--labels", "old.csv", "--json")
    assert done.exit_code == 0, done.stderr
    assert f"{NEW} has no labels" in done.stderr
    assert json.loads(done.stdout)["added"][NEW]["prompts"] == 0
    options = json.loads(run("route", "a red house", "--pool", "larger.pool", "--json").stdout)
    assert f"{NEW} on its settings alone" in options["router"]["basis"]
    errors = {row["candidate"]: row["quality_error"] for row in options["options"]}
    assert errors[NEW] > 2 * max(error for name, error in errors.items() if name != NEW)


def test_a_router_that_reads_states_is_extended_too(run: Run, pools: Run) -> None:
    fitted = run("fit-router", "--pool", "desk.pool", "--labels", "old.csv", "--encoder", "states")
    assert fitted.exit_code == 0, fitted.stderr
    done = pools("--labels", "new.csv")
    assert done.exit_code == 0, done.stderr
    before, after = open_pool_router(Pool.open("desk.pool")), open_pool_router(Pool.open("larger.pool"))
    np.testing.assert_array_equal(before.features, after.features)
    assert run("route", "a red house", "--pool", "larger.pool").exit_code == 0


BAD = {
    "no router": (("--extend", "larger.pool", "--labels", "new.csv"), "it has no router to extend"),
    "nothing to add": (("--pool", "desk.pool", "-o", "out.pool", "--labels", "new.csv"), "the router which is extended does not have"),
    "no pool": (("--extend", "nowhere", "--labels", "new.csv"), "nowhere"),
    "other labels": (("--labels", "foreign.csv"), f"it has no labels of {NEW}"),
    "another encoder": (("--labels", "new.csv", "--encoder", "hashed"), "--extend keeps the router"),
}


@pytest.mark.parametrize(("options", "problem"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_extended_is_refused_in_one_line(pools: Run, options: tuple[str, ...], problem: str) -> None:
    Path("foreign.csv").write_text("prompt,candidate,score\na house,else,1\n")
    done = pools(*options)
    assert done.exit_code in (2, 4), done.output
    assert problem in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.output
    assert not Path("out.pool").exists()
    assert Pool.open("larger.pool").router is None


def test_other_weights_under_an_old_name_are_refused(pools: Run, twin_bundle: Path, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "changed", seed=1)
    write_pool_of(Path("changed.pool"), tmp_path / "changed", twin_bundle)
    done = pools("--pool", "changed.pool", "--labels", "new.csv")
    assert done.exit_code == 2, done.output
    assert "with other weights or settings than in" in done.stderr
    assert Pool.open("changed.pool").router is None
