"""`python -m benchmarks.latency` on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import latency
from benchmarks.peer import Peer, Shot, with_steps
from benchmarks.scenario import Target
from costroute_rt import Bundle, Runtime

FAST = Shot(pixels=np.zeros((8, 8, 3), np.uint8), total_ms=10.0, stages={"outside engines": 1.0})


def test_our_own_stages_stand_beside_the_target(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "OUTSIDE_TARGET", Target(high=1e6))
    assert latency.main(["--quick", "--bundle", str(tiny_bundle), "--home", str(engine_home)]) == 0
    out = capsys.readouterr().out
    assert "costroute-rt, 8 steps" in out
    for name in ("total", "text", "denoise", "decode", "outside engines", "threads"):
        assert name in out


def test_a_slow_program_falls_short_and_a_missing_peer_is_a_row(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(bundle: Bundle, threads: int) -> Peer:
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(latency, "OUTSIDE_TARGET", Target(high=0.0))
    monkeypatch.setattr(latency, "open_diffusers", missing)
    monkeypatch.setattr(latency, "open_optimum", lambda bundle, threads: lambda job: FAST)
    arguments = ["--quick", "--json", "--peers", "--bundle", str(tiny_bundle), "--home", str(engine_home)]
    assert latency.main(arguments) == 1
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["diffusers, 8 steps"]["error"] == "ModuleNotFoundError: No module named 'torch'"
    assert rows["diffusers, 8 steps"]["missing"] == ["like ours", "times ours"]
    assert not rows["costroute-rt, 8 steps"]["good"]
    assert rows["costroute-rt, 8 steps"]["error"] is None
    assert {row["scenario"]["settings"]["threads"] for row in rows.values()} == {
        rows["optimum, 1 steps"]["scenario"]["settings"]["threads"]
    }


def test_speed_is_compared_turn_by_turn() -> None:
    ours = [FAST, FAST]
    theirs = [Shot(pixels=FAST.pixels, total_ms=ms, stages={}) for ms in (25.0, 35.0)]
    figure = latency.compare_times(theirs, ours)
    assert (figure.value, figure.low, figure.high) == (3.0, 2.75, 3.25)


def test_pictures_are_compared_in_decibels() -> None:
    assert latency.compare_pictures(FAST.pixels, FAST.pixels).value == 99.0
    assert latency.compare_pictures(FAST.pixels, FAST.pixels + np.uint8(2)).value == pytest.approx(42.1, abs=0.1)


def test_the_pool_of_a_bundle_can_be_replaced_for_a_while(tiny_bundle: Path, engine_home: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with with_steps(bundle, "base", (1, 3)) as root, Runtime.open(root, home=engine_home, build=True, preload=False) as runtime:
        assert [(each.name, each.num_inference_steps, each.is_guided) for each in runtime.candidates] == [
            ("guided@1", 1, True),
            ("guided@3", 3, True),
        ]
    assert not root.exists()
    with pytest.raises(ValueError, match="turbo with guidance"), with_steps(bundle, "turbo", (1,)):
        pass
