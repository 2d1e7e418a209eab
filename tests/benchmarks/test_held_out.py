"""The benchmarks of the shipped router, on a tiny bundle whose router prefers later candidates for long prompts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import batch, held_out, router, router_parts, router_time
from benchmarks.postcard_router import ORACLE
from costroute_rt import Bundle
from costroute_rt.routing.router_bundle import with_router
from tests.small_router import make_router

NAMES = ("tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8")
COST = (10, 20, 40, 80)
Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def routed(judged_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a scorer of postcards and a router."""
    folder, bundle = tmp_path_factory.mktemp("routed"), Bundle.open(judged_bundle)
    make_router(bundle.pool).save(folder / "router")
    return with_router(bundle, folder / "router", folder / "bundle").root


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], routed: Path, engine_home: Path) -> Callable[..., tuple[int, Rows]]:
    """Runs a benchmark; returns the exit code, and the rows by name of the scenario."""

    def call(main: Callable[[list[str]], int], *arguments: object) -> tuple[int, Rows]:
        code = main(["--json", "--quick", "--bundle", str(routed), "--home", str(engine_home), *map(str, arguments)])
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, {row["scenario"]["name"]: row for row in rows}

    return call


def write_labels(path: Path, *, costs: bool = True, fitted: bool = False, seeds: int = 2) -> Path:
    """80 prompts; as the router expects, the last candidate is the best for long prompts and the first for short ones."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["prompt", "category", "candidate", "seed", "score", "cost_ms"])
        for index in range(80):
            is_long, text = index % 2, f"a {('red', 'old', 'blue', 'green')[index % 4]} {('house', 'boat', 'tree')[index % 3]} {index}"
            text += " at night, with snow" if is_long else ""
            for place, name in enumerate(NAMES):
                for seed in range(seeds):
                    score = 0.6 + (0.05 if is_long else -0.02) * place + 0.001 * ((index * 7 + seed * 3 + place) % 5)
                    table.writerow([text, "7+" if is_long else "1-2", name, seed, score, COST[place] if costs else ""])
        if fitted:
            table.writerows([("A  red house", "1-2", name, 0, 0.5, 1) for name in NAMES])
    return path


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in row["figures"]}


def test_a_good_router_meets_its_targets(run: Callable[..., tuple[int, Rows]], tmp_path: Path) -> None:
    code, rows = run(router.main, "postcard", "--labels", write_labels(tmp_path / "labels.csv", fitted=True))
    assert code == 0, rows
    found = figures(rows["router"])
    assert found["gain over best single candidate"] == pytest.approx(0.03, abs=0.003)
    assert found["QNC (relative cost at equal quality)"] < 0.6
    assert found["extra cost of 7+ stated things over 1-2"] > 20
    assert rows["router"]["scenario"]["settings"]["left_out"] == 1
    assert rows["router"]["notes"]["costs"] == "mean cost_ms of the labels"
    assert figures(rows[ORACLE])["gain over best single candidate"] >= found["gain over best single candidate"] - 0.01
    assert figures(rows["1-2 stated"])["mean cost"] < figures(rows["7+ stated"])["mean cost"]
    assert rows["3-4 stated"]["notes"] == {"none": "no captions in this band"}


def test_a_wrong_router_misses_its_targets(run: Callable[..., tuple[int, Rows]], tmp_path: Path) -> None:
    path = write_labels(tmp_path / "labels.csv")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(",7+,", ",x,").replace(",1-2,", ",7+,").replace(",x,", ",1-2,"), encoding="utf-8")
    code, rows = run(router.main, "postcard", "--labels", path)
    assert code == 1
    assert figures(rows["router"])["extra cost of 7+ stated things over 1-2"] < 0


def test_labels_without_costs_get_those_profiled_on_this_device(run: Callable[..., tuple[int, Rows]], tmp_path: Path) -> None:
    _, rows = run(router.main, "postcard", "--labels", write_labels(tmp_path / "labels.csv", costs=False, seeds=1))
    assert rows["router"]["error"] is None
    assert rows["router"]["notes"]["costs"] == "profiled on this device"
    assert ORACLE not in rows


def test_labels_are_made_once_and_reused(
    run: Callable[..., tuple[int, Rows]], engine_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(held_out, "QUICK_CAPTIONS", 8)
    _, rows = run(router.main, "postcard")
    assert rows["router"]["scenario"]["settings"]["captions"] == 8
    [table] = (engine_home / "benchmarks").glob("held-out-*.csv")
    before = table.read_bytes()
    assert before.count(b"\n") == 1 + 8 * len(NAMES) * len(held_out.QUICK_SEEDS)
    run(batch.main)
    assert table.read_bytes() == before


def test_an_allocated_budget_beats_equal_shares(run: Callable[..., tuple[int, Rows]], tmp_path: Path) -> None:
    code, rows = run(batch.main, "--labels", write_labels(tmp_path / "labels.csv"))
    assert code == 0
    assert len(rows) == 3
    for row in rows.values():
        found = figures(row)
        assert found["gain over equal shares"] == pytest.approx(found["allocated"] - found["equal shares"], abs=1e-5)
        assert found["budget used, allocated"] <= 1
        assert found["budget used, equal shares"] <= 1


def test_a_bundle_without_a_router_is_an_error(
    judged_bundle: Path, engine_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_labels(tmp_path / "labels.csv")
    code = router.main(["postcard", "--json", "--bundle", str(judged_bundle), "--home", str(engine_home), "--labels", str(labels)])
    assert code == 1
    assert "it has no router" in json.loads(capsys.readouterr().out)["error"]


def test_labels_without_held_out_prompts_are_an_error(run: Callable[..., tuple[int, Rows]], tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("prompt,category,candidate,score\n" + "".join(f"a red house,1-2,{name},0.5\n" for name in NAMES), encoding="utf-8")
    code, rows = run(router.main, "postcard", "--labels", path)
    assert code == 1
    assert "that the router was not fitted to" in rows["benchmarks.router"]["error"]


def test_a_router_is_timed_in_a_separate_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(router_time, "LABELLED", 40)
    monkeypatch.setattr(router_time, "CASES", [router_time.Case("mean", "hashed", 40, 8)])
    router.main(["time", "--json", "--quick"])
    row = json.loads(capsys.readouterr().out)
    assert row["error"] is None
    found = {figure["name"]: figure for figure in row["figures"]}
    assert found["time per prompt"]["value"] > 0
    assert found["time per prompt"]["target"] == {"at_most": 1.0}
    assert found["arrays"]["value"] == pytest.approx(40 * 8 * 4 / 1e6 + 4096 * 9 * 4 / 1e6, rel=0.1)
    assert row["scenario"]["repeats"] == router_time.QUICK_CALLS
    parts = {part: found[part]["value"] for part in (*router_parts.PARTS, router_parts.REST)}
    assert min(parts.values()) > 0


def test_the_time_of_a_part_is_without_that_of_the_parts_it_calls() -> None:
    stopwatch = router_parts.Stopwatch(iter([0.0, 2.0, 3.0, 3.0, 5.0, 9.0]).__next__)
    search = stopwatch.wrap("nearest prompts", lambda: None)
    stopwatch.wrap("estimators", lambda: [search(), search()])()
    spent = stopwatch.take()
    assert (spent["nearest prompts"], spent["estimators"]) == (3, 6)
    assert sum(spent.values()) == 9
    assert sum(stopwatch.take().values()) == 0
