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
def restore_global_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark registers its backend and changes settings of this process; later tests need the originals."""
    for module in background.MODULES:
        loaded = import_module(f"costroute_rt.engines.{module}")
        monkeypatch.setattr(loaded, "get_backend", loaded.get_backend)
    monkeypatch.setattr(builder, "COMMAND", builder.COMMAND)
    monkeypatch.setenv(background.BUILD_S_VARIABLE, "0")


@pytest.mark.slow
def test_images_before_during_and_after_a_build(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "SLOWDOWN_TARGET", Target(high=1e6))
    normal_priority = "from costroute_rt.engines.building import background; background.NICENESS = 0; "  # a busy machine would starve it
    monkeypatch.setattr(background, "COMMAND", ("-c", normal_priority + background.COMMAND[1]))
    monkeypatch.setattr(background, "SWAP_TARGET", Target())  # on a busy machine the artificial backend may lose the race
    assert background.main(["--quick", "--json", "--bundle", str(tiny_bundle)]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert [figure["name"] for figure in row["figures"]] == ["before", "during", "after", "slowdown", "engines swapped in"]
    assert int(row["notes"]["images during"]) > 0


def test_a_slowdown_above_the_target_misses_it() -> None:
    assert background.SLOWDOWN_TARGET.admits(1.2)
    assert not background.SLOWDOWN_TARGET.admits(1.3)
