"""`costroute-rt pool`, and every command that takes one."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from benchmarks.split_bundle import split_bundle
from costroute_rt.cli.number import Size
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.states import read_states
from costroute_rt.routing.pool_writing import with_pool_router
from costroute_rt.routing.router_bundle import open_pool_router, open_router
from tests.cli.conftest import Run, invoke
from tests.export.router.label_text import write_labels
from tests.pools import write_pool_of
from tests.small_router import make_router

NAMES = ("tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8")
SCORER = "def brightness(pixels, prompt):\n    return pixels.mean() / 255\n"


@pytest.fixture(scope="session")
def pool_home(pool_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COSTROUTE_HOME in which the pool's engines are built."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSTROUTE_HOME", str(home))
        done = invoke("build-engines", "--pool", pool_folder)
    assert done.exit_code == 0, done.output
    return home


@pytest.fixture
def at_home(pool_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSTROUTE_HOME", str(pool_home))
    return pool_home


@pytest.fixture(scope="session")
def parts(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny bundle as one bundle for each of its denoisers."""
    return split_bundle(tiny_bundle, tmp_path_factory.mktemp("parts"))


@pytest.fixture
def user_scorer(run: Run) -> Iterator[str]:
    """A scorer in a module of the working folder."""
    Path("pool_scorer.py").write_text(SCORER)
    yield "pool_scorer:brightness"
    sys.modules.pop("pool_scorer", None)


def test_a_pool_is_made_and_shown(run: Run, tiny_bundle: Path, other_bundle: Path) -> None:
    made = run("pool", tiny_bundle, other_bundle, "-o", "desk.pool", "--license", "apache-2.0, mit")
    assert made.exit_code == 0, made.stderr
    assert made.stdout == run("pool", "--show", "desk.pool").stdout
    assert "no router: candidates are chosen by these means" in made.stdout
    found = json.loads(run("pool", "--show", "desk.pool", "--json").stdout)
    assert [row["name"] for row in found["candidates"]][:2] == ["other-base@8", "tiny-base@8"]
    assert found["bundles"]["other"] == {"family": "other", "revision": "9", "license": "MIT", "folder": str(other_bundle)}


def test_a_pool_replaces_nothing_else(run: Run, tiny_bundle: Path, other_bundle: Path) -> None:
    assert run("pool", tiny_bundle, "-o", "desk.pool").exit_code == 0
    again = run("pool", other_bundle, "-o", "desk.pool")
    assert (again.exit_code, "--force replaces it" in again.stderr) == (7, True)
    Path("desk.pool/notes.txt").write_text("mine")
    forced = run("pool", other_bundle, "-o", "desk.pool", "--force")
    assert (forced.exit_code, "notes.txt" in forced.stderr) == (7, True)
    Path("desk.pool/notes.txt").unlink()
    assert run("pool", other_bundle, "-o", "desk.pool", "--force").exit_code == 0
    Path("folder").mkdir()
    assert run("pool", other_bundle, "-o", "folder", "--force").exit_code == 7


@pytest.mark.parametrize("arguments", [(), ("-o", "a"), ("-o", "a", "--show", "b"), ("bundle",)])
def test_what_to_do_must_be_clear(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("pool", *arguments).exit_code == 2


def test_engines_of_all_bundles_are_built_listed_and_explained(run: Run, at_home: Path, pool_folder: Path) -> None:
    plan = json.loads(run("build-engines", "--pool", pool_folder, "--dry-run", "--json").stdout)
    assert not any(each["builds"] for each in plan["engines"])
    assert len({each["graph"] for each in plan["engines"]}) == 10  # those of the twin exist already
    used = {
        each["graph"]: each["used_by"] for each in json.loads(run("engines", "list", "--pool", pool_folder, "--json").stdout)["engines"]
    }
    assert used["tiny/base/guided_step"] == ["tiny-base@8", "tiny-base@4", "twin@2"]
    explained = json.loads(run("engines", "explain", "--pool", pool_folder, "--json").stdout)["engines"]
    assert all(each["found"] for each in explained)
    assert run("profile", "--pool", pool_folder, "--json").exit_code == 0
    kept = json.loads(run("engines", "gc", "--max-gb", "1", "--pool", pool_folder, "--dry-run", "--json").stdout)
    assert kept["removed"] == []
    one = run("build-engines", "--pool", pool_folder, "--graph", "other/base/guided_step", "--dry-run", "--json")
    assert [each["graph"] for each in json.loads(one.stdout)["engines"]] == ["other/base/guided_step"]
    assert run("build-engines", "--pool", pool_folder, "--graph", "base/guided_step", "--dry-run").exit_code == 2


EVERY = (
    ("gen", "a lake", "-o", "out.png"),
    ("route", "a lake"),
    ("build-engines",),
    ("profile",),
    ("label", "--prompts", "prompts.csv", "--labels", "made.csv"),
    ("fit-router", "--labels", "labels.csv"),
    ("eval-router", "--labels", "labels.csv"),
    ("engines", "list"),
    ("engines", "explain"),
    ("engines", "gc", "--max-gb", "1"),
)


@pytest.mark.parametrize("words", EVERY, ids=lambda words: " ".join(words[:2]))
def test_every_command_refuses_a_pool_whose_bundle_is_gone(run: Run, home: Path, tiny_bundle: Path, words: tuple[str, ...]) -> None:
    Path("prompts.csv").write_text("prompt\na lake\n")
    Path("labels.csv").write_text(write_labels(NAMES, count=2))
    shutil.copytree(tiny_bundle, "tiny")
    write_pool_of(Path("desk.pool"), Path("tiny").resolve())
    shutil.rmtree("tiny")
    done = run(*words, "--pool", "desk.pool")
    assert (done.exit_code, done.stderr.count("\n")) == (4, 1), done.stderr
    assert "no bundle directory exists here" in done.stderr


def test_doctor_checks_the_models_of_a_pool(run: Run, at_home: Path, pool_folder: Path, tmp_path: Path) -> None:
    facts = json.loads(run("doctor", "--pool", pool_folder, "--json").stdout)["facts"]
    assert facts["models: other"] == "other 9, 4 candidates, all hashes match"
    (tmp_path / "pool.json").write_text("{}")
    done = run("doctor", "--pool", tmp_path)
    assert (done.exit_code, "its format is None" in done.stdout) == (1, True)


def test_images_of_a_pool_are_made_and_kept(run: Run, at_home: Path, pool_folder: Path) -> None:
    Path("lines.txt").write_text("a lake\na house\n")
    options = ("--pool", pool_folder, "--prompts", "lines.txt", "-o", "out", "--seed", 1)
    first = run("gen", *options)
    assert first.stdout.count("other-base@8") == 2, first.stderr
    assert run("gen", *options).stdout.count("other-base@8") == 0
    third = run("gen", *options, "--license", "apache-2.0")
    assert third.stdout.count("tiny-base@8") == 2, third.stderr
    wide = run("route", "a lake", "--pool", pool_folder, "--height", 64, "--width", 96)
    assert "other-base@8 cannot serve it: height x width" in wide.stdout
    assert run("gen", "a lake", "--pool", pool_folder, "--bundle", pool_folder).exit_code == 2


def test_independent_bundles_get_the_router_of_the_one_bundle(run: Run, built: Path, tiny_bundle: Path, parts: list[Path]) -> None:
    """Same labels, same decisions."""
    Path("labels.csv").write_text(write_labels(NAMES, count=48))
    assert run("pool", *parts, "-o", "parts.pool").exit_code == 0
    for encoder in ("hashed", "states"):
        how = ("--labels", "labels.csv", "--encoder", encoder, "--estimator", "linear")
        assert run("fit-router", "--bundle", tiny_bundle, *how, "-o", f"one-{encoder}").exit_code == 0
        fitted = run("fit-router", "--pool", "parts.pool", *how)
        assert fitted.exit_code == 0, fitted.stderr
        pool, prompts = Pool.open("parts.pool"), [f"a red house number {index}" for index in range(20)]
        one, several = open_router(Bundle.open(f"one-{encoder}")), open_pool_router(pool)
        states = read_states(Bundle.open(tiny_bundle), prompts, home=built) if encoder == "states" else None
        order = [NAMES.index(name) for name in pool.names()]
        (mean, error, trust), found = one.estimate(prompts, states), several.estimate(prompts, states)
        for expected, value in zip((mean[:, order], error[:, order], trust), found, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-12)  # the columns are added up in another order
        assert one.record["cross_validation"]["gain"] == several.record["cross_validation"]["gain"]
        shown = [
            json.loads(run("route", "a blue boat number 1 at night with snow and a moon", *source, "--json").stdout)
            for source in (("--bundle", f"one-{encoder}"), ("--pool", "parts.pool"))
        ]
        assert shown[0]["chosen"] == shown[1]["chosen"]
        assert shown[0]["router"] == {**shown[1]["router"]}
    Path("heldout.csv").write_text(write_labels(NAMES, first=100, count=30))
    judged = [
        json.loads(run("eval-router", *source, "--labels", "heldout.csv", "--json").stdout)["figures"]["router"]
        for source in (("--bundle", "one-states"), ("--pool", "parts.pool"))
    ]
    assert judged[0] == judged[1]


def test_one_candidate_more_needs_no_new_labels_of_the_others(
    run: Run, at_home: Path, tiny_bundle: Path, other_bundle: Path, user_scorer: str
) -> None:
    Path("prompts.csv").write_text("prompt\na red house\na lake\nbirds\n")
    how = ("--prompts", "prompts.csv", "--labels", "labels.csv", "--scorer", user_scorer, "--seeds", 1)
    write_pool_of(Path("one.pool"), tiny_bundle)
    first = run("label", "--pool", "one.pool", *how)
    assert "12 rows added, 0 existed" in first.stdout, first.stderr + repr(first.exception)
    write_pool_of(Path("two.pool"), tiny_bundle, other_bundle, candidates=[*NAMES, "other-base@4"])
    assert "3 rows added, 12 existed" in run("label", "--pool", "two.pool", *how).stdout
    assert set(LabelTable.open("labels.csv").candidates) == {*NAMES, "other-base@4"}


def test_missing_labels_of_a_new_candidate_are_filled(run: Run, parts: list[Path]) -> None:
    rows = write_labels(NAMES, count=80).splitlines()
    few = [row for index, row in enumerate(rows) if "tiny-base@8" not in row or index % 640 < 320]
    Path("labels.csv").write_text("\n".join(few) + "\n")
    run("pool", *parts, "-o", "parts.pool")
    done = run("fit-router", "--pool", "parts.pool", "--labels", "labels.csv", "--encoder", "hashed", "--estimator", "linear", "--json")
    assert done.exit_code == 0, done.stderr
    assert "41 of 80 prompts are labelled for every candidate" in done.stderr
    assert json.loads(done.stdout)["routes_on"] == "prompt"


def test_labels_made_elsewhere_are_enough_to_route(run: Run, home: Path) -> None:
    names = ("Imagen 3", "Muse-B/2", "SD XL", "vermeer")
    Path("labels.csv").write_text(write_labels(names, costs=False))
    made = run("pool", "--labels", "labels.csv", "-o", "elsewhere.pool")
    assert made.exit_code == 0, made.stderr
    fitted = run("fit-router", "--pool", "elsewhere.pool", "--labels", "labels.csv", "--json")
    assert fitted.exit_code == 0, fitted.stderr
    assert json.loads(fitted.stdout)["routes_on"] == "prompt"
    for prompt, best in (("a red house number 0", names[0]), ("a blue boat number 1 at night with snow and a moon", names[3])):
        route = json.loads(run("route", prompt, "--pool", "elsewhere.pool", "--json").stdout)
        assert route["chosen"] == best
    assert run("eval-router", "--pool", "elsewhere.pool", "--labels", "labels.csv").exit_code == 0
    made = run("gen", "a lake", "--pool", "elsewhere.pool", "-o", "out.png")
    assert (made.exit_code, "this pool has only labels of it" in made.stderr) == (2, True)
    Path("prompts.csv").write_text("prompt\na lake\n")
    labelled = run("label", "--pool", "elsewhere.pool", "--prompts", "prompts.csv", "--labels", "more.csv")
    assert (labelled.exit_code, "nothing to make images with" in labelled.stderr) == (2, True)
    assert not any(home.glob("engines/*"))


def test_a_limit_of_memory(run: Run, at_home: Path, pool_folder: Path) -> None:
    made = run("gen", "a lake", "--pool", pool_folder, "--max-memory", "2 GiB", "-o", "out.png")
    assert (made.exit_code, Path("out.png").exists()) == (0, True), made.stderr
    refused = run("gen", "a lake", "--pool", pool_folder, "--max-memory", "20MB", "-o", "out.png")
    assert (refused.exit_code, "max_memory is '20 MB': expected" in refused.stderr) == (2, True), refused.stderr
    assert run("route", "a lake", "--max-memory", "much").exit_code == 2


@pytest.mark.parametrize(("text", "size"), [("6GiB", 6 << 30), ("800MB", 800_000_000), ("1.5 kb", 1500), ("12", 12), ("2tib", 2 << 40)])
def test_sizes(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "0", "-1MB", "1e3", "6 gigabytes", "MB", "9" * 30, "nan", "²MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Size().convert(text, None, None)


@pytest.fixture
def routed(run: Run, at_home: Path, pool_folder: Path) -> Path:
    """A pool with a router, to break."""
    pool = Pool.open(pool_folder)
    make_router(pool.rows).save(Path("fitted"))
    return with_pool_router(pool, Path("fitted"), Path("routed.pool")).root


def test_a_router_of_other_candidates_is_refused(run: Run, routed: Path) -> None:
    assert run("route", "a lake", "--pool", routed).exit_code == 0
    content = json.loads((routed / "pool.json").read_text())
    content["candidates"] = content["candidates"][1:]
    (routed / "pool.json").write_text(json.dumps(content))
    done = run("route", "a lake", "--pool", routed)
    assert (done.exit_code, "does not belong to this pool: it was fitted for" in done.stderr) == (4, True)
    assert "(costroute-rt fit-router)" in done.stderr


def test_a_changed_router_file_is_refused(run: Run, routed: Path) -> None:
    file = routed / "router" / "router.json"
    file.write_text(file.read_text().replace('"near"', '"Near"'))
    done = run("route", "a lake", "--pool", routed)
    assert (done.exit_code, "does not match the manifest" in done.stderr) == (4, True)
