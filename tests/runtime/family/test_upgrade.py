"""Better engines are built in another process and swapped in between two requests; generation continues even if the build fails."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import Building, ConfigError, Runtime, StateError
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.gate import Race
from costroute_rt.engines.building.progress import Stage, Step
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import image_calls
from costroute_rt.family.upgrade import Upgrade
from costroute_rt.runtime import StepEvent
from tests import gated_backend
from tests.engines.conftest import quarantine
from tests.runtime.fakes import CALL_MS, BoxedEngine, FakeDevice, FakeEngine, is_kept, steady

PROMPT = "a red house by a lake"
OPEN_S = 60.0


class Script:
    """A builder whose events a test puts into `queue`."""

    def __init__(self) -> None:
        self.queue: queue.Queue[dict[str, str] | None] = queue.Queue()
        self.is_closed = self.is_released = False

    def events(self) -> Iterator[dict[str, str]]:
        while (event := self.queue.get()) is not None:
            yield event

    def close(self) -> None:
        self.is_closed = True
        self.queue.put({"state": "failed", "reason": "closed"})
        self.queue.put(None)

    def release(self) -> None:
        self.is_released = True


class Upgraded:
    """A fake device whose better engines take a tenth of the time, and become ready when the test says so."""

    def __init__(self, device: FakeDevice, recorded: dict[str, Any] | None = None) -> None:
        self.device, self.script, self.opened = device, Script(), threading.Event()
        self.engines: dict[str, FakeEngine] = {}
        upgrade = Upgrade(
            self.script,
            self._open,  # type: ignore[arg-type]
            lambda name: steady(CALL_MS[name] / 10),
            setup=Setup(backend="better", provider="gpu", precision="float16"),
            steps=[Step(stage=Stage.BUILD, engine=name, expected_s=3.0) for name in CALL_MS],
            recorded=recorded or {},
            clock=device.clock,
        )
        self.upgrade = upgrade
        self.resources = replace(device.resources, upgrade=upgrade)
        self.runtime = Runtime(self.resources)

    def _open(self, name: str) -> FakeEngine:
        _, component, graph = name.split("/")
        bundle = self.resources.main_family.bundle
        spec = bundle.graphs[bundle.graph_path(component, graph)]
        engine = FakeEngine(name, self.device.clock, lambda name: CALL_MS[name] / 10, lambda _: None, inputs=spec.inputs)
        self.engines[name] = engine
        return engine

    def make_ready(self, *names: str) -> None:
        """Send events that these engines are ready, and wait until the upgrade has processed them."""
        for name in names:
            self.script.queue.put({"engine": name, "state": "building"})
            self.script.queue.put({"engine": name, "state": "ready"})
        wanted = self.upgrade.status().done + len(names)
        while self.upgrade.status().done < wanted:
            threading.Event().wait(0.001)

    def finish(self, *names: str) -> None:
        """Send events that these engines are ready and the build has ended, and wait for the upgrade."""
        self.make_ready(*names)
        self.script.queue.put({"state": "done"})
        self.script.queue.put(None)
        assert self.upgrade.wait(OPEN_S)


@pytest.fixture
def upgraded(device: FakeDevice) -> Iterator[Upgraded]:
    made = Upgraded(device)
    yield made
    made.runtime.close()


def test_engines_are_swapped_between_two_requests(upgraded: Upgraded) -> None:
    old = upgraded.device.engines["tiny/base/guided_step"]
    before = old.calls

    def in_the_middle(event: StepEvent) -> None:
        if event.index == 2:
            upgraded.finish("tiny/base/guided_step")

    first = upgraded.runtime.generate(PROMPT, candidate="base@4", seed=1, on_step=in_the_middle)
    assert old.calls == before + 4
    assert upgraded.engines["tiny/base/guided_step"].calls == 0
    assert not old.is_closed
    second = upgraded.runtime.generate(PROMPT, candidate="base@4", seed=1)
    assert old.calls == before + 4
    assert old.is_closed
    assert upgraded.engines["tiny/base/guided_step"].calls == 4
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (first.predicted_ms, second.predicted_ms) == pytest.approx((216.0, 36.0), abs=1.5)
    assert second.actual_ms == pytest.approx(4 * 5 + 10 + 5, abs=1.5)


def test_values_are_converted_between_engines_of_different_backends(upgraded: Upgraded) -> None:
    want = upgraded.runtime.generate(PROMPT, candidate="base@4", seed=1).pixels
    for name in ("tiny/base/guided_step", "tiny/base/condition", "tiny/vae/decode"):
        engine = upgraded._open(name)
        boxed = BoxedEngine(name, engine.clock, engine.ms, engine.fail, inputs=engine.inputs)
        upgraded.resources.engines.replace({name: boxed})  # type: ignore[dict-item]
        np.testing.assert_array_equal(upgraded.runtime.generate(PROMPT, candidate="base@4", seed=1).pixels, want)
        upgraded.runtime.preload()
    np.testing.assert_array_equal(
        upgraded.runtime.generate(PROMPT, candidate="turbo@2", seed=1).pixels,
        upgraded.device.runtime.generate(PROMPT, candidate="turbo@2", seed=1).pixels,
    )


def test_a_route_has_the_costs_of_current_and_future_engines(upgraded: Upgraded) -> None:
    route = upgraded.runtime.route(PROMPT, candidate="turbo@1")
    assert route.option.building_ms is None
    building = upgraded.runtime.building
    assert building is not None
    assert (building.done, building.total, building.remaining_s) == (0, 5, 15.0)
    upgraded.make_ready("tiny/turbo/step", "tiny/vae/decode", "tiny/text_encoder/encode")
    route = upgraded.runtime.route(PROMPT, candidate="turbo@1")
    assert route.option.ms == pytest.approx(35.0, abs=1.5)
    assert route.option.building_ms == pytest.approx(4.4, abs=1.5)
    data = route.to_json()
    building = upgraded.runtime.building
    assert building is not None
    assert building.to_json() == {
        "backend": "better", "provider": "gpu", "precision": "float16", "graph": None, "done": 3, "total": 5, "share": None, "rejected": {},
        "problem": None, "elapsed_s": 0.0, "remaining_s": 6.0, "is_over": False,
    }  # fmt: skip
    assert data["options"][0]["building_ms"] == round(route.option.building_ms, 3)
    json.dumps(data)
    (planned,) = upgraded.runtime.plan([PROMPT], total_ms=60000)
    assert next(option.building_ms for option in planned.options if option.candidate.name == "turbo@1") == route.option.building_ms
    upgraded.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    assert upgraded.runtime.route(PROMPT, candidate="turbo@1").option.ms == pytest.approx(35.0, abs=1.5)  # until the build has ended
    upgraded.finish()
    upgraded.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    after = upgraded.runtime.route(PROMPT, candidate="turbo@1").option
    assert (after.ms, after.building_ms) == (pytest.approx(4.4, abs=1.5), None)


def test_the_state_of_a_build_counts_down(upgraded: Upgraded) -> None:
    def state(engine: str, done: int, share: float | None) -> Building:
        """The state once this event was noted."""
        upgraded.script.queue.put({"engine": engine, "state": "building", **({} if share is None else {"share": share})})
        while True:
            building = upgraded.runtime.building
            assert building is not None
            if (building.graph, building.done, building.share) == (engine, done, share):
                return building
            threading.Event().wait(0.001)

    assert state("tiny/turbo/step", 0, None).remaining_s == 15.0
    upgraded.device.clock.pass_ms(1000)
    building = upgraded.runtime.building
    assert building is not None
    assert (building.elapsed_s, building.remaining_s) == (1.0, 14.0)
    assert state("tiny/turbo/step", 0, 0.25).remaining_s == 12.0 + 3.0  # a quarter took a second
    upgraded.make_ready("tiny/turbo/step")
    assert state("tiny/vae/decode", 1, None).remaining_s == 12.0
    upgraded.device.clock.pass_ms(9000)
    building = upgraded.runtime.building
    assert building is not None
    assert building.remaining_s == 9.0  # later than expected: then it may end at any moment


def test_costs_of_earlier_builds_are_used_until_the_build_fails(device: FakeDevice) -> None:
    upgraded = Upgraded(device, {name: steady(ms / 10) for name, ms in CALL_MS.items()})
    assert upgraded.runtime.route(PROMPT, candidate="turbo@1").option.building_ms == pytest.approx(4.4, abs=1.5)
    upgraded.script.queue.put({"state": "failed", "reason": "the building process was killed (SIGKILL)"})
    upgraded.script.queue.put(None)
    assert upgraded.upgrade.wait(OPEN_S)
    assert upgraded.runtime.route(PROMPT, candidate="turbo@1").option.building_ms is None
    upgraded.runtime.close()


def test_engines_that_are_taken_while_the_runtime_closes_are_closed(upgraded: Upgraded) -> None:
    """Between `take` and `replace`, another thread closes the runtime."""
    upgraded.finish("tiny/base/guided_step")
    taken = upgraded.upgrade.take()
    upgraded.runtime.close()
    upgraded.resources.engines.replace({name: engine for name, (engine, _) in taken.items()})
    assert upgraded.engines["tiny/base/guided_step"].is_closed
    assert upgraded.resources.engines._resident == {}


def test_a_replaced_text_encoder_leaves_no_encoding_of_a_negative_prompt(upgraded: Upgraded) -> None:
    """It is replaced while a request runs that goes on with it."""
    name = "tiny/text_encoder/encode"
    engine = upgraded._open(name)

    def replace_it(called: str) -> None:
        upgraded.device.on_call.clear()
        upgraded.resources.engines.replace({name: engine})  # type: ignore[dict-item]

    upgraded.device.on_call.append(replace_it)
    upgraded.runtime.generate(PROMPT, candidate="base@4", seed=1, negative_prompt="fog")
    assert (engine.calls, is_kept(upgraded.resources, "text_encoder", "fog")) == (0, False)
    upgraded.runtime.generate(PROMPT, candidate="base@4", seed=1, negative_prompt="fog")
    assert (engine.calls, is_kept(upgraded.resources, "text_encoder", "fog")) == (2, True)


def test_a_handler_of_log_messages_may_ask_for_the_state_of_the_build(upgraded: Upgraded) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(upgraded.runtime.building)

    seen = list[Any]()
    handler = Handler()
    logging.getLogger("costroute_rt").addHandler(handler)
    try:
        upgraded.script.queue.put({"engine": "tiny/base/guided_step", "state": "rejected", "reason": "it is wrong"})
        for _ in range(30_000):
            if upgraded.upgrade._rejected and seen:
                break
            threading.Event().wait(0.001)
    finally:
        logging.getLogger("costroute_rt").removeHandler(handler)
    assert seen[0].rejected


def test_observations_of_a_replaced_engine_are_dropped(upgraded: Upgraded) -> None:
    upgraded.device.slowdown["tiny/base/guided_step"] = 3.0
    for _ in range(6):
        upgraded.runtime.generate(PROMPT, candidate="base@4", seed=1)
    upgraded.finish("tiny/base/guided_step")
    upgraded.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    assert upgraded.runtime.route(PROMPT, candidate="base@4").option.ms == pytest.approx(36.0, abs=4)


def test_the_engine_in_use_stays_if_its_replacement_is_rejected_or_cannot_be_opened(upgraded: Upgraded, caplog: Any) -> None:
    def fail(name: str) -> Any:
        raise RuntimeError("no such device")

    upgraded.upgrade._open_ready = fail
    upgraded.script.queue.put({"engine": "tiny/turbo/step", "state": "rejected", "reason": "it is slower"})
    upgraded.script.queue.put({"engine": "tiny/vae/decode", "state": "ready"})
    upgraded.script.queue.put({"state": "done"})
    upgraded.script.queue.put(None)
    assert upgraded.upgrade.wait(OPEN_S)
    assert upgraded.script.is_released
    assert upgraded.runtime.building is not None
    assert upgraded.runtime.building.rejected == {"tiny/turbo/step": "it is slower", "tiny/vae/decode": "RuntimeError: no such device"}
    assert upgraded.runtime.building.is_over
    assert "turbo/step for better gpu float16 is not used: it is slower" in caplog.text
    upgraded.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    assert upgraded.device.engines["tiny/turbo/step"].calls > 0


def test_new_engines_are_used_only_after_the_whole_build(upgraded: Upgraded) -> None:
    upgraded.make_ready("tiny/turbo/step", "tiny/text_encoder/encode")
    upgraded.script.queue.put({"engine": "tiny/vae/decode", "state": "building"})
    upgraded.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    assert upgraded.engines == {}
    assert not upgraded.upgrade.status().is_over
    upgraded.finish("tiny/vae/decode")
    assert upgraded.upgrade.status().is_over
    upgraded.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    assert {name: engine.calls for name, engine in upgraded.engines.items()} == {
        "tiny/turbo/step": 1, "tiny/text_encoder/encode": 1, "tiny/vae/decode": 1,
    }  # fmt: skip


def test_engines_rejected_after_being_ready_are_not_used(upgraded: Upgraded) -> None:
    upgraded.make_ready("tiny/turbo/step", "tiny/vae/decode")
    for name in ("tiny/turbo/step", "tiny/vae/decode"):
        upgraded.script.queue.put({"engine": name, "state": "rejected", "reason": "images are slower with it"})
    upgraded.finish()
    upgraded.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    assert upgraded.engines == {}
    status = upgraded.upgrade.status()
    assert (status.done, status.is_over, set(status.rejected.values())) == (2, True, {"images are slower with it"})
    assert upgraded.runtime.route(PROMPT, candidate="turbo@1").option.building_ms is None


def test_if_one_engine_cannot_be_opened_all_are_rejected_and_closed(upgraded: Upgraded) -> None:
    def fail_second(name: str) -> Any:
        if name == "tiny/vae/decode":
            raise RuntimeError("no memory")
        return upgraded._open(name)

    upgraded.upgrade._open_ready = fail_second
    upgraded.finish("tiny/turbo/step", "tiny/vae/decode")
    upgraded.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    assert upgraded.engines["tiny/turbo/step"].is_closed
    assert upgraded.upgrade.status().rejected == dict.fromkeys(("tiny/turbo/step", "tiny/vae/decode"), "RuntimeError: no memory")


def test_ready_engines_are_not_used_if_the_builder_is_killed(upgraded: Upgraded) -> None:
    upgraded.make_ready("tiny/turbo/step")
    upgraded.script.queue.put({"state": "failed", "reason": "the building process was killed (SIGKILL)"})
    upgraded.script.queue.put(None)
    assert upgraded.upgrade.wait(OPEN_S)
    assert upgraded.upgrade.status().is_over
    upgraded.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    assert upgraded.engines == {}


def test_closing_the_runtime_ends_the_builder_and_closes_untaken_engines(upgraded: Upgraded) -> None:
    upgraded.finish("tiny/turbo/step")
    upgraded.runtime.close()
    assert upgraded.script.is_closed
    assert upgraded.script.is_released
    assert upgraded.engines["tiny/turbo/step"].is_closed
    with pytest.raises(StateError, match="closed"):
        upgraded.runtime.generate(PROMPT)


def test_scaled_costs_are_relative_to_another_engine() -> None:
    measured = steady(10.0, p95=1.5)
    cost = replace(measured, call=replace(measured.call, spread_ms=2.0)).scaled("tiny/turbo/step", "1" * 32, 0.5, 2.0)
    assert (cost.call.median_ms, cost.call.p95_ms, cost.call.spread_ms) == (5.0, 7.5, 1.0)
    assert (cost.load.median_ms, cost.relative_to, cost.digest) == (60.0, "0" * 32, "1" * 32)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Registers the gated backend here and in the building process; files in this folder let its builds continue."""
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    folder = tmp_path / "gate"
    folder.mkdir()
    monkeypatch.setenv(gated_backend.GATE, str(folder))
    monkeypatch.setattr("costroute_rt.engines.building.background.COMMAND", gated_backend.COMMAND)
    gated_backend.install(monkeypatch.setattr)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A store with the tiny bundle's engines for ONNX Runtime."""
    home = tmp_path_factory.mktemp("home")
    Runtime.open(tiny_bundle, home=home, threads=1, build=True, preload=False).close()
    return home


@pytest.fixture
def open_gated(gate: Path, store: Path, tiny_bundle: Path, tmp_path: Path) -> Callable[..., Runtime]:
    """Opens a runtime that wants engines of the gated backend, on a copy of the store."""
    import shutil

    home = shutil.copytree(store, tmp_path / "home")
    return lambda **more: Runtime.open(
        tiny_bundle, home=home, backend="gated", threads=1, background_build=True, **{"preload": False, **more}
    )


def upgrade_of(runtime: Runtime) -> Upgrade:
    assert runtime._resources.upgrade is not None
    return runtime._resources.upgrade


def test_images_come_from_ready_engines_until_the_background_build_ends(open_gated: Callable[..., Runtime], gate: Path) -> None:
    with open_gated() as runtime:
        assert upgrade_of(runtime).expected_costs(["tiny/turbo/step"]) is None
        before = runtime.generate(PROMPT, seed=3, candidate="tiny-base@4")
        assert before.settings["backend"] == "onnxruntime"
        (gate / "all").touch()
        assert upgrade_of(runtime).wait(OPEN_S)
        after = runtime.generate(PROMPT, seed=3, candidate="tiny-base@4")
        assert runtime.building is not None
        assert (runtime.building.problem, runtime.building.is_over) == (None, True)
        assert runtime.building.rejected == {}
        assert after.settings["backend"] == "gated"
        np.testing.assert_array_equal(before.pixels, after.pixels)
        assert runtime.route(PROMPT, candidate="tiny-base@4").option.ms > 0
    with open_gated() as again:
        assert again.building is None
        assert again.generate(PROMPT, seed=3, candidate="tiny-base@4").settings["backend"] == "gated"


def test_costs_measured_during_a_background_build_are_relative_to_the_replaced_engine(
    open_gated: Callable[..., Runtime], gate: Path, tmp_path: Path
) -> None:
    (gate / "all").touch()
    with open_gated() as runtime:
        assert upgrade_of(runtime).wait(OPEN_S)
    stored = {(each.key.backend, each.key.graph): each for each in Store.open(tmp_path / "home").engines()}
    (costs,) = json.loads((stored["gated", "tiny/vae/decode"].path / "costs.json").read_bytes())["costs"]["measured"]
    assert costs["relative_to"] == stored["onnxruntime", "tiny/vae/decode"].digest


def test_a_slower_engine_replaces_none_but_can_be_chosen_explicitly(
    open_gated: Callable[..., Runtime], gate: Path, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gate / "all").touch()
    (gate / "slow").touch()
    for _ in range(2):
        with open_gated() as runtime:
            assert upgrade_of(runtime).wait(OPEN_S)
            assert runtime.building is not None
            assert runtime.building.is_over
            reasons = set(runtime.building.rejected.values())
            assert len(runtime.building.rejected) == 5
            assert all("slower than the engine it would replace" in reason for reason in reasons)
            assert runtime.generate(PROMPT, seed=3).settings["backend"] == "onnxruntime"
        monkeypatch.setattr("costroute_rt.engines.building.background.start_builder", None)  # no second process may start
    with Runtime.open(tiny_bundle, home=tmp_path / "home", backend="gated", threads=1, preload=False) as runtime:
        assert runtime.generate(PROMPT, seed=3).settings["backend"] == "gated"
    store = Store.open(tmp_path / "home")
    for stored in store.engines():
        if stored.key.backend == "onnxruntime":
            store.remove(stored.digest)
    with open_gated() as runtime:  # the engines that won the races no longer exist
        assert runtime.building is None
        assert runtime.generate(PROMPT, seed=3).settings["backend"] == "gated"


def test_a_quarantined_engine_does_not_prevent_the_use_of_the_others(
    open_gated: Callable[..., Runtime], gate: Path, tmp_path: Path
) -> None:
    (gate / "all").touch()
    with open_gated() as runtime:
        assert upgrade_of(runtime).wait(OPEN_S)
    store = Store.open(tmp_path / "home")
    (wrong,) = (each for each in store.engines() if (each.key.backend, each.key.graph) == ("gated", "tiny/vae/decode"))
    quarantine(store, wrong.key, "it is wrong")
    with open_gated() as runtime:
        assert upgrade_of(runtime).wait(OPEN_S)
        assert runtime.building is not None
        assert (runtime.building.is_over, runtime.building.rejected) == (True, {"tiny/vae/decode": "it is wrong"})
        runtime.generate(PROMPT, seed=3, candidate="tiny-base@4")
        used = [runtime._resources.engines.get(name).key for name in ("tiny/base/guided_step", "tiny/vae/decode")]
        assert [key and key.backend for key in used] == ["gated", "onnxruntime"]


def test_an_engine_that_passed_its_race_is_neither_built_nor_raced_again(
    open_gated: Callable[..., Runtime], gate: Path, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gate / "all").touch()
    with open_gated() as runtime:
        assert upgrade_of(runtime).wait(OPEN_S)
    store = Store.open(tmp_path / "home")
    gone = next(each for each in store.engines() if (each.key.backend, each.key.graph) == ("gated", "tiny/turbo/step"))
    store.remove(gone.digest)
    with open_gated() as runtime:
        job = json.loads(json.dumps(upgrade_of(runtime)._builder.job))  # type: ignore[union-attr]
        assert len(job["names"]) == 5
        assert upgrade_of(runtime).wait(OPEN_S)
        assert runtime.building is not None
        assert (runtime.building.done, runtime.building.total, runtime.building.rejected) == (5, 5, {})

    from costroute_rt.engines.building import background

    def note_race(ours: Any, theirs: Any) -> Race:
        races.append(1)
        return Race((1.0,) * 3, (1.0,) * 3)

    races = list[int]()
    monkeypatch.setattr(background, "run_race", note_race)
    assert [each["state"] for each in background.build_job(job)] == ["building", "ready"] * 5
    assert len(races) == len(image_calls(Bundle.open(tiny_bundle)))  # races of whole images only: each engine has passed its own race


def test_engines_that_slow_down_whole_images_are_rejected_for_good(
    open_gated: Callable[..., Runtime], gate: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    (gate / "all").touch()
    (gate / "slow images").touch()
    for attempt in range(2):
        with open_gated() as runtime:
            assert upgrade_of(runtime).wait(OPEN_S)
            assert runtime.building is not None
            assert len(runtime.building.rejected) == 5
            assert all(why.startswith("images are slower with it among the engines of onnxruntime cpu float32 that stay: by tiny-")
                       for why in runtime.building.rejected.values())  # fmt: skip
            assert runtime.generate(PROMPT, seed=3).settings["backend"] == "onnxruntime"
            assert (upgrade_of(runtime)._builder is None) is (attempt == 1)
    with Runtime.open(tiny_bundle, home=tmp_path / "home", backend="gated", threads=1, preload=False) as runtime:
        assert runtime.generate(PROMPT, seed=3).settings["backend"] == "gated"


def test_races_missed_by_a_crash_run_at_the_next_start(open_gated: Callable[..., Runtime], gate: Path) -> None:
    for name in ("all", "crash before images"):
        (gate / name).touch()
    with open_gated() as runtime:
        assert upgrade_of(runtime).wait(OPEN_S)
        assert runtime.building is not None
        assert (runtime.building.done, runtime.building.problem) == (5, "the building process ended with exit code 7")
    (gate / "crash before images").unlink()
    with open_gated() as runtime:
        assert upgrade_of(runtime).wait(OPEN_S)
        assert runtime.generate(PROMPT, seed=3).settings["backend"] == "gated"
    with open_gated() as runtime:
        assert runtime.building is None


def test_build_and_background_build_exclude_each_other(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="build and background_build"):
        Runtime.open(tiny_bundle, home=tmp_path, build=True, background_build=True)


def test_an_invalid_event_of_the_builder_is_reported_and_ends_it(upgraded: Upgraded, caplog: Any) -> None:
    upgraded.script.queue.put({"engine": "tiny/turbo/step", "state": "building"})
    upgraded.script.queue.put({"engine": "tiny/turbo/step"})
    assert upgraded.upgrade.wait(OPEN_S)
    building = upgraded.runtime.building
    assert building is not None
    assert (building.problem, building.is_over) == ("KeyError: 'state'", True)
    assert upgraded.script.is_closed
    assert upgraded.script.is_released
    assert "the background build ended" in caplog.text


def test_a_building_process_that_cannot_start_is_an_error(open_gated: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch) -> None:
    from costroute_rt import EngineError

    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EngineError, match=r"/nowhere/python: the building process cannot be started: .*build=True"):
        open_gated()


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL to the builder, which Windows does not have")
def test_a_killed_builder_is_reported_and_generation_continues(
    open_gated: Callable[..., Runtime], gate: Path, tmp_path: Path, caplog: Any
) -> None:
    with open_gated() as runtime:
        os.kill(upgrade_of(runtime)._builder.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        assert upgrade_of(runtime).wait(OPEN_S)
        assert runtime.building is not None
        assert runtime.building.problem == "the building process was killed (SIGKILL)"
        assert "the engines in use stay: the building process was killed" in caplog.text
        assert runtime.generate(PROMPT, seed=3).settings["backend"] == "onnxruntime"
    assert not list((tmp_path / "home/engines").glob(".*"))


def test_the_exit_code_of_a_crashed_builder_is_reported(open_gated: Callable[..., Runtime], gate: Path) -> None:
    for name in ("crash", "all"):
        (gate / name).touch()
    with open_gated() as runtime:
        assert upgrade_of(runtime).wait(OPEN_S)
        assert runtime.building is not None
        assert runtime.building.problem == "the building process ended with exit code 7"


def test_closing_the_runtime_ends_the_building_process(open_gated: Callable[..., Runtime]) -> None:
    runtime = open_gated()
    process = upgrade_of(runtime)._builder._process  # type: ignore[attr-defined]
    assert process.poll() is None
    runtime.close()
    assert process.poll() is not None


@pytest.mark.skipif(os.name == "nt", reason="reads the niceness of the builder, which Windows does not have")
def test_the_builder_runs_at_low_priority(open_gated: Callable[..., Runtime], gate: Path) -> None:
    (gate / "nice").touch()
    with open_gated() as runtime:
        upgrade = upgrade_of(runtime)
        while upgrade.status().graph is None:
            threading.Event().wait(0.01)
        assert os.getpriority(os.PRIO_PROCESS, upgrade._builder.pid) == 19  # type: ignore[attr-defined]


def test_without_any_ready_engines_those_of_the_cpu_are_built_first(gate: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    with Runtime.open(tiny_bundle, home=tmp_path / "new", backend="gated", threads=1, background_build=True, preload=False) as runtime:
        assert runtime.building is not None
        assert runtime.generate(PROMPT, seed=3).settings["backend"] == "onnxruntime"


def test_an_unknown_backend_raises_before_the_build(tiny_bundle: Path, store: Path) -> None:
    with pytest.raises(ConfigError, match="abacus"):
        Runtime.open(tiny_bundle, home=store, backend="abacus", background_build=True)


def test_a_frozen_program_cannot_build_in_the_background(
    open_gated: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
) -> None:
    from costroute_rt import EngineError

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(EngineError, match=r"cannot start an interpreter.*build=True"):
        open_gated()


def test_the_building_process_ends_when_its_parent_dies(open_gated: Callable[..., Runtime]) -> None:
    with open_gated() as runtime:
        process = upgrade_of(runtime)._builder._process  # type: ignore[attr-defined]
        process.stdin.close()  # as the system does when the parent dies
        process.wait(OPEN_S)
        assert upgrade_of(runtime).wait(OPEN_S)
