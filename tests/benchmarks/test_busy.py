"""`python -m benchmarks.busy`, on a tiny bundle."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import busy

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")


def test_the_benchmark_reports_every_condition(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy, "QUICK_S", 0.1)
    monkeypatch.setattr(busy, "QUICK_REST_S", 0.05)
    monkeypatch.setattr(busy, "WALK_MEMORY", busy.BURN)  # a test takes no gigabyte
    arguments = ["--json", "--quick", "--backend", "onnxruntime", "--bundle", str(tiny_bundle), "--home", str(engine_home)]
    busy.main(arguments)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["scenario"]["name"] for line in lines] == [f"onnxruntime: {each.name}" for each in busy.CONDITIONS]
    assert [line["error"] for line in lines] == [None] * len(lines)
    figures = {figure["name"]: figure["value"] for figure in lines[0]["figures"]}
    assert figures["slowdown"] == 1
    assert figures["served again"] > 0
    assert lines[0]["notes"].keys() == {"images", "refused because", "fastest, idle"}


def made(actual_ms: float, max_ms: float, *options: tuple[str, float, float]) -> Any:
    """A result of the first of the options, each with its name, its quality and its predicted time."""
    known = {name: SimpleNamespace(name=name, quality=quality, ms=ms, p95_ms=1.1 * ms) for name, quality, ms in options}
    route = SimpleNamespace(max_ms=max_ms, options=list(known.values()), find=known.__getitem__)
    return SimpleNamespace(actual_ms=actual_ms, route=route, made=(SimpleNamespace(name=options[0][0]),))


@pytest.mark.parametrize(("actual_ms", "max_ms", "expected"), [(100, 250, True), (100, 210, False), (150, 250, False), (50, 120, True)])
def test_a_better_candidate_is_judged_by_how_slow_the_machine_was(actual_ms: float, max_ms: float, expected: bool) -> None:
    result = made(actual_ms, max_ms, ("used", 0.8, 100), ("better", 0.9, 200), ("worse", 0.7, 10))
    assert busy.has_better(result) is expected


def test_a_client_counts_refusals_and_the_time_until_it_is_served_again(
    tiny_bundle: Path, engine_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy, "LEAST", 1e4)  # with a budget that fits beside other tests too
    opened = partial(busy.Runtime.open, tiny_bundle, home=engine_home, build=True)
    with opened() as runtime:
        fixed = busy.fixed_candidates(runtime)
        tally = busy.Client(runtime, opened, fixed, [1e-6, 60_000]).observe(busy.Condition("idle"), seconds=0.2, rest_s=0.0)
    assert set(tally.refused) == {"too_slow"}
    assert all(result.route.max_ms == 60_000 for result in tally.results)
    assert tally.fixed_ms.keys() == set(fixed)
    assert (tally.recovery_s > 0, tally.lock_outs) == (True, 0)
