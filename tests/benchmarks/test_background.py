"""`python -m benchmarks.background` on a tiny bundle."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import background
from benchmarks.scenario import Target
from costroute_rt.engines.building import background as builder


@pytest.fixture(autouse=True)
def nothing_stays_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark makes its backend known to this process, which has other tests to run."""
    for module in background.MODULES:
        loaded = import_module(f"costroute_rt.engines.{module}")
        monkeypatch.setattr(loaded, "get_backend", loaded.get_backend)
    monkeypatch.setattr(builder, "COMMAND", builder.COMMAND)
    monkeypatch.setenv(background.SECONDS, "0")


@pytest.mark.slow
def test_images_before_during_and_after_a_build(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "SLOWDOWN_TARGET", Target(high=1e6))
    at_once = "from costroute_rt.engines.building import background; background.NICENESS = 0; "  # not after all else on a busy machine
    monkeypatch.setattr(background, "COMMAND", ("-c", at_once + background.COMMAND[1]))
    monkeypatch.setattr(background, "SWAP_TARGET", Target())  # on a busy machine a race may be lost
    assert background.main(["--quick", "--json", "--bundle", str(tiny_bundle)]) == 0
    (told,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert [figure["name"] for figure in told["figures"]] == ["before", "during", "after", "slowdown", "engines swapped in"]
    assert int(told["notes"]["images during"]) > 0


def test_a_slowdown_beyond_the_target_falls_short() -> None:
    assert background.SLOWDOWN_TARGET.admits(1.2)
    assert not background.SLOWDOWN_TARGET.admits(1.3)
