"""Races and choices between engines compare times that were measured under one condition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from costroute_rt.engines.backends.engine import Backend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building import background
from costroute_rt.engines.building.gate import Race
from costroute_rt.engines.building.lookup import engine_key, find_rejection, may_replace, read_cost, write_cost
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.machine import device
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.family.calls import engine_names
from costroute_rt.family.engine_source import EngineSource, choose_start
from tests.engines.conftest import build
from tests.gated_backend import GATE, GatedBackend

NAME = "tiny/vae/decode"
ONE, GATED, THIRD = Setup(threads=1), Setup(backend="gated", threads=1), Setup(backend="third", threads=1)


class Third(GatedBackend):
    name = "third"


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two more backends, whose builds go on at once."""

    def find_backend(name: str) -> Backend:
        made = {"gated": GatedBackend, "third": Third}.get(name)
        return get_backend(name) if made is None else made()  # type: ignore[return-value]

    monkeypatch.setattr("costroute_rt.engines.backends.setup.get_backend", find_backend)
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate/all").touch()
    monkeypatch.setenv(GATE, str(tmp_path / "gate"))


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "power_mode", lambda *_: "on battery")


def find(bundle: Bundle, store: Store, setup: Setup, name: str = NAME) -> StoredEngine:
    stored = store.peek(engine_key(bundle, name, setup))
    assert stored is not None
    return stored


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_race_on_battery_scales_the_costs_of_the_condition_they_were_measured_under(
    bundle: Bundle, store_copy: Store, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    known = read_cost(bundle, store_copy, NAME, ONE)
    unplug(monkeypatch)
    build(bundle, store_copy, GATED, names=[NAME], measure=False)
    monkeypatch.setattr(background, "run_race", lambda *_: Race((3.0,) * 3, (1.0,) * 3) if is_lost else Race((0.5,) * 3, (1.0,) * 3))
    reason = background.prove_faster(bundle, store_copy, NAME, GATED, ONE)
    found = read_cost(bundle, store_copy, NAME, GATED)
    assert found.condition == known.condition
    assert found.call.median_ms == pytest.approx((3.0 if is_lost else 0.5) * known.call.median_ms, abs=1e-3)
    assert (reason is not None, found.is_slower) == (is_lost, is_lost)
    assert may_replace(bundle, store_copy, NAME, GATED, ONE) is False
    monkeypatch.undo()
    assert found.relative_to == known.digest


def test_a_lost_race_counts_until_the_engine_is_measured_under_another_condition(
    bundle: Bundle, store_copy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = read_cost(bundle, store_copy, NAME, ONE)
    (report,) = build(bundle, store_copy, GATED, names=[NAME], measure=False)
    write_cost(store_copy, find(bundle, store_copy, GATED), known.scaled(NAME, report.digest, 2.0, 1.0, is_slower=True))
    slower = find_rejection(bundle, store_copy, NAME, GATED, ONE)
    unplug(monkeypatch)
    other = read_cost(bundle, store_copy, NAME, ONE)
    here = replace(other.scaled(NAME, other.digest, 9.0, 9.0), condition=ONE.condition())
    write_cost(store_copy, find(bundle, store_copy, ONE), here)
    assert find_rejection(bundle, store_copy, NAME, GATED, ONE) == slower
    assert f"{2 * known.call.median_ms:.2f} ms a call, that of onnxruntime cpu float32 {known.call.median_ms:.2f} ms" in str(slower)


def test_the_start_is_chosen_by_times_of_one_condition(bundle: Bundle, store_copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    names = engine_names(bundle)
    build(bundle, store_copy, GATED, measure=False)

    def put(setup: Setup, ms: float) -> None:
        for name in names:
            stored = find(bundle, store_copy, setup, name)
            known = read_cost(bundle, store_copy, name, ONE)
            times = replace(known.call, median_ms=ms)
            write_cost(store_copy, stored, replace(known, digest=stored.digest, call=times, condition=setup.condition()))

    put(ONE, 10.0)
    put(GATED, 20.0)
    unplug(monkeypatch)
    put(ONE, 30.0)  # the gated engines were not measured on battery, where they would be slower too
    assert choose_start(EngineSource(bundle, store_copy, THIRD), names, None).setup == ONE
    put(GATED, 25.0)
    assert choose_start(EngineSource(bundle, store_copy, THIRD), names, None).setup == GATED
