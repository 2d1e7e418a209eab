"""Costs are measured per engine file, and believed only where they were measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.building import profile
from costroute_rt.engines.building.lookup import read_cost
from costroute_rt.engines.building.profile import profile_engines, summarize
from costroute_rt.engines.building.progress import OpenEvent
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.machine import device
from costroute_rt.engines.store import cost
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError
from costroute_rt.family.calls import engine_names
from tests.engines.conftest import build


def test_costs_of_a_built_engine_can_be_read(tiny_bundle: Path, built_home: Path) -> None:
    found = read_cost(Bundle.open(tiny_bundle), Store.open(built_home), "tiny/base/guided_step", Setup(threads=1))
    assert found.engine == "tiny/base/guided_step"
    assert found.call.calls >= 20
    assert 0 < found.call.median_ms <= found.call.p95_ms
    assert found.load.median_ms > 0


def test_profiling_measures_each_engine_again(tiny_bundle: Path, store_copy: Store) -> None:
    seen: list[OpenEvent] = []
    bundle = Bundle.open(tiny_bundle)
    names = engine_names(bundle)
    costs = profile_engines(bundle, store_copy, names, Setup(threads=1), progress=seen.append)
    assert [cost.engine for cost in costs] == list(dict.fromkeys(event.engine for event in seen if event.engine)) == names
    assert {event.stage for event in seen} == {"measure"}
    assert (seen[0].total, seen[-1].done) == (6, 6)  # each engine, then all of them in turns
    assert seen[0].remaining_s is not None  # from the measurement before
    read = read_cost(bundle, store_copy, "tiny/vae/decode", Setup(threads=1))
    assert read.call.median_ms == pytest.approx(costs[4].call.median_ms, abs=1e-4)


def test_profiling_needs_engines(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"to measure; build the engines"):
        profile_engines(Bundle.open(tiny_bundle), Store.open(tmp_path), engine_names(Bundle.open(tiny_bundle)), Setup(threads=1))


def test_an_unmeasured_engine_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(tmp_path)
    build(bundle, store, Setup(threads=1), names=["tiny/turbo/step"], measure=False)
    with pytest.raises(EngineError, match=r"turbo/step .*it has not been measured.*; profile the engines"):
        read_cost(bundle, store, "tiny/turbo/step", Setup(threads=1))


def test_costs_of_another_power_mode_are_used_until_this_one_is_measured(
    tiny_bundle: Path, store_copy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, setup = Bundle.open(tiny_bundle), Setup(threads=1)
    before = read_cost(bundle, store_copy, "tiny/vae/decode", setup)
    monkeypatch.setattr(device, "power_mode", lambda: "on battery")
    assert read_cost(bundle, store_copy, "tiny/vae/decode", setup) == before
    (measured,) = profile_engines(bundle, store_copy, ["tiny/vae/decode"], setup)
    assert measured.condition == replace(before.condition, power_mode="on battery")
    assert read_cost(bundle, store_copy, "tiny/vae/decode", setup).condition == measured.condition
    monkeypatch.undo()
    assert read_cost(bundle, store_copy, "tiny/vae/decode", setup) == before


@pytest.mark.parametrize("name", ["engine_sha256", "device", "driver", "os"])
def test_costs_are_refused_when_the_engine_or_the_device_changed(built_home: Path, name: str) -> None:
    store = Store.open(built_home)
    stored = store.engines()[0]
    now = cost.identity(stored.key, stored.sha256)
    assert set(now) == {"engine_sha256", "device", "driver", "os"}
    files = cost.CostFiles(store.root, stored.path)
    files.read(now, "g")
    with pytest.raises(EngineError, match=f"another {name}: then .*now changed"):
        files.read({**now, name: "changed"}, "g")


def test_a_rebuilt_engine_is_measured_again(tiny_bundle: Path, store_copy: Store) -> None:
    bundle = Bundle.open(tiny_bundle)
    (report,) = build(bundle, store_copy, Setup(threads=1), names=["tiny/vae/decode"], force=True)
    assert report.median_ms is not None
    assert read_cost(bundle, store_copy, "tiny/vae/decode", Setup(threads=1)).call.median_ms == pytest.approx(report.median_ms, abs=1e-4)


def test_invalid_costs_are_measured_again_with_a_warning(
    tiny_bundle: Path, store_copy: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tiny_bundle)
    build(bundle, store_copy, Setup(threads=1))
    assert caplog.messages == []
    monkeypatch.setattr("costroute_rt.engines.machine.device.power_mode", lambda: "another")
    build(bundle, store_copy, Setup(threads=1))
    assert caplog.messages == []
    (next(iter(store_copy.engines())).path / "costs.json").write_text("{}")
    build(bundle, store_copy, Setup(threads=1))
    assert len(caplog.messages) == 1
    assert "measuring again" in caplog.text
    assert "costs" in caplog.text


def test_calls_are_timed_in_turns_without_the_first_ones() -> None:
    now, order = [0.0], list[str]()

    def call(name: str, seconds: Iterator[float]) -> None:
        order.append(name)
        now[0] += next(seconds)

    slow, fast = iter([1.0] * 3 + [0.02] * 40), iter([1.0] * 3 + [0.01] * 40)
    times = profile._time_in_turns({"slow": lambda: call("slow", slow), "fast": lambda: call("fast", fast)}, lambda: now[0])
    assert order[:4] == ["slow", "fast", "slow", "fast"]
    assert times["slow"] == pytest.approx([20.0] * 40)
    assert summarize(times["fast"]).median_ms == pytest.approx(10.0)


@pytest.mark.parametrize(("call_s", "limit_s", "calls"), [(0.2, 0.8, 20), (1.0, 0.8, 6), (8.0, 0.8, 2), (8.0, 20.0, 3)])
def test_slow_engines_are_measured_fewer_times(call_s: float, limit_s: float, calls: int) -> None:
    now, made = [0.0], {"slow": 0, "fast": 0}

    def call(name: str, seconds: float) -> None:
        made[name] += 1
        now[0] += seconds

    engines = {"slow": lambda: call("slow", call_s), "fast": lambda: call("fast", 0.01)}
    times = profile._time_in_turns(engines, lambda: now[0], limit_s)
    assert times["slow"] == pytest.approx([1e3 * call_s] * calls)
    assert made["slow"] <= calls + 3
    assert len(times["fast"]) == 20


def test_large_engines_are_loaded_once_and_one_at_a_time(tiny_bundle: Path, store_copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_LARGE_BYTES", 0)
    bundle, setup, is_open, most = Bundle.open(tiny_bundle), Setup(threads=1), list[str](), [0]
    real_open, real_close = OnnxRuntimeBackend.open, OnnxRuntimeEngine.close

    def note_open(self: OnnxRuntimeBackend, folder: Path, spec: BuildSpec, key: EngineKey | None = None) -> OnnxRuntimeEngine:
        is_open.append(folder.name)
        most[0] = max(most[0], len(is_open))
        opened.append(folder.name)
        return real_open(self, folder, spec, key)

    def note_close(self: OnnxRuntimeEngine) -> None:
        is_open.remove(self._folder.name)
        real_close(self)

    opened = list[str]()
    monkeypatch.setattr(OnnxRuntimeBackend, "open", note_open)
    monkeypatch.setattr(OnnxRuntimeEngine, "close", note_close)
    names = ["tiny/turbo/step", "tiny/vae/decode"]
    costs = profile_engines(bundle, store_copy, names, setup)
    assert (len(opened), most) == (2, [1])
    assert [cost.engine for cost in costs] == names
    assert all(cost.call.calls >= 20 and cost.load.calls == 1 for cost in costs)


def test_measuring_ends_early_where_somebody_waits_for_a_build() -> None:
    now = [0.0]

    def call() -> None:
        now[0] += 0.05

    assert len(profile._time_in_turns({"a": call}, lambda: now[0], profile._FIRST_LIMIT_S)["a"]) == 20
    now[0] = 0.0
    assert len(profile._time_in_turns({"a": call}, lambda: now[0])["a"]) == 40


def test_only_one_measures_in_a_store_and_the_next_takes_its_costs(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(tmp_path)
    build(bundle, store, Setup(threads=1), names=["tiny/turbo/step"], measure=False)
    is_measuring, others, timed = threading.Event(), list[threading.Thread](), list[str]()
    real = profile._time_in_turns

    def time_with_a_rival(calls: Mapping[str, Any], *rest: Any) -> dict[str, list[float]]:
        assert not is_measuring.is_set()
        is_measuring.set()
        timed.extend(calls)
        rival = threading.Thread(target=lambda: build(bundle, store, Setup(threads=1), names=["tiny/turbo/step"]))
        rival.start()
        others.append(rival)
        rival.join(0.2)
        found = real(calls, *rest)
        is_measuring.clear()
        return found

    monkeypatch.setattr(profile, "_time_in_turns", time_with_a_rival)
    build(bundle, store, Setup(threads=1), names=["tiny/turbo/step"])
    others[0].join(60)
    assert timed == ["tiny/turbo/step"]
    assert "waiting for another process that is measuring" in caplog.text


def test_summary_statistics() -> None:
    found = summarize([float(value) for value in range(1, 101)])
    assert (found.median_ms, found.calls) == (50.5, 100)
    assert found.p95_ms == pytest.approx(95.05)
    assert found.spread_ms == pytest.approx(49.5)


def test_device_facts_are_there_and_stable() -> None:
    facts = device.device_facts()
    assert facts["cpu"]
    assert isinstance(facts["usable_cores"], int)
    assert 1 <= device.default_threads() <= facts["usable_cores"]
    assert facts == device.device_facts()
