"""Fifty asyncio clients and twenty threads on one runtime: all end as they should, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import BudgetError, CancelledError, Result, Runtime, StateError
from costroute_rt.result import StepEvent
from tests.runtime.fakes import FakeDevice

PROMPT = "a red house by a lake"
CLIENTS, THREADS, SEEDS = 50, 20, 4
Outcome = Result | Exception | None


class Crowd:
    """Clients of one runtime that behave by chance: generate, route, stream with pauses, cancel, give up."""

    def __init__(self, runtime: Runtime, seed: int, *, budget_ms: float, give_up_s: float) -> None:
        """budget_ms: of most requests. give_up_s: after which time some clients cancel."""
        self.runtime, self.budget_ms, self.give_up_s = runtime, budget_ms, give_up_s
        self.chance = [random.Random(f"{seed} {index}") for index in range(CLIENTS + THREADS)]
        self.kept: list[Result] = []
        """Results of requests with a budget that nobody paused or cancelled."""
        self.made: list[Result] = []
        self.errors: list[Exception] = []

    def run(self) -> None:
        threads = [threading.Thread(target=self._thread, args=(chance,), daemon=True) for chance in self.chance[CLIENTS:]]
        for thread in threads:
            thread.start()
        asyncio.run(self._clients())
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()

    async def _clients(self) -> None:
        await asyncio.wait_for(asyncio.gather(*(self._client(chance) for chance in self.chance[:CLIENTS])), 60)

    def options(self, chance: random.Random) -> dict[str, Any]:
        max_ms = self.budget_ms * chance.choice([0.3, 1, 3, 10, 30]) if chance.random() < 0.8 else None
        return {"prompt": PROMPT, "seed": chance.randrange(SEEDS), "max_ms": max_ms}

    def note(self, call: Callable[[], Outcome], *, is_kept: bool) -> None:
        try:
            self.note_result(call(), is_kept=is_kept)
        except Exception as error:
            self.errors.append(error)

    def note_result(self, result: Outcome, *, is_kept: bool) -> None:
        if isinstance(result, Result):
            self.made.append(result)
            if is_kept and result.met is not None:
                self.kept.append(result)

    def _thread(self, chance: random.Random) -> None:
        runtime, cancel = self.runtime, threading.Event()
        options = self.options(chance)
        kind = chance.randrange(6)
        if kind < 2:
            self.note(lambda: runtime.generate(**options), is_kept=True)
        elif kind == 2:
            threading.Timer(self.give_up_s, cancel.set).start()
            self.note(lambda: runtime.generate(**options, cancel=cancel), is_kept=False)
        elif kind == 3:
            self.note(lambda: self._stream(chance, options), is_kept=False)
        elif kind == 4:
            self.note(lambda: (runtime.route(**options), None)[1], is_kept=False)
        else:
            self.note(lambda: self._submit(chance, options), is_kept=True)

    def _submit(self, chance: random.Random, options: dict[str, Any]) -> Result:
        job = self.runtime.submit(**options)
        if chance.random() < 0.5:
            job.cancel()
        return job.result(60)

    def _stream(self, chance: random.Random, options: dict[str, Any]) -> Result | None:
        stream = self.runtime.stream(**options)
        for event in stream:
            if isinstance(event, Result):
                return event
            if chance.random() < 0.2:
                threading.Event().wait(self.give_up_s)  # a slow consumer
            if chance.random() < 0.1:
                stream.close()
        return None

    async def _client(self, chance: random.Random) -> None:
        runtime, options = self.runtime, self.options(chance)
        kind = chance.randrange(6)
        try:
            if kind < 2:
                self.note_result(await runtime.generate_async(**options), is_kept=True)
            elif kind == 2:
                task = asyncio.create_task(runtime.generate_async(**options))
                await asyncio.wait([task], timeout=self.give_up_s)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            elif kind == 3:
                async with aclosing(runtime.stream_async(**options)) as events:
                    async for _ in events:
                        await asyncio.sleep(0)
                        if chance.random() < 0.1:
                            break
            elif kind == 4:
                await runtime.route_async(**options)
            else:
                stream = runtime.stream(**options)
                while isinstance(await asyncio.to_thread(next, stream), StepEvent):
                    await asyncio.sleep(0)
        except Exception as error:
            self.errors.append(error)


@contextmanager
def leaves_no_thread() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread.name


def images(runtime: Runtime) -> dict[tuple[str, int], Any]:
    """Pixels by candidate and seed, each made alone."""
    keys = [(each.name, seed) for each in runtime.candidates for seed in range(SEEDS)]
    return {(name, seed): runtime.generate(PROMPT, candidate=name, seed=seed).pixels for name, seed in keys}


def check(crowd: Crowd, want: dict[tuple[str, int], Any]) -> None:
    assert len(crowd.made) + len(crowd.errors) > 0
    unexpected = [each for each in crowd.errors if not isinstance(each, BudgetError | CancelledError)]
    assert unexpected == []
    for result in crowd.made:
        if not result.replanned:
            np.testing.assert_array_equal(result.pixels, want[result.route.chosen.name, result.seed])
    for _ in range(30_000):  # the last unit of work of a request that was cancelled may still run
        if not crowd.runtime._device._tickets:
            return
        threading.Event().wait(0.001)
    raise AssertionError(crowd.runtime._device._tickets)


@pytest.mark.parametrize("seed", range(10))
def test_every_accepted_request_is_kept(device: FakeDevice, seed: int) -> None:
    """The clock advances only while engines run, so every request that is accepted and left alone meets its budget exactly."""
    runtime = device.runtime
    want = images(runtime)
    with leaves_no_thread():
        crowd = Crowd(runtime, seed, budget_ms=100, give_up_s=0.002)
        crowd.run()
        check(crowd, want)
        assert crowd.kept
        assert [each for each in crowd.kept if not each.met] == []
        runtime.close()
    assert device.resources.engines._resident == {}
    assert all(engine.is_closed for engine in device.engines.values())


@pytest.mark.parametrize("seed", range(10))
def test_closing_ends_everything(device: FakeDevice, seed: int) -> None:
    with leaves_no_thread():
        crowd = Crowd(device.runtime, seed, budget_ms=1000, give_up_s=0.002)
        closing = threading.Timer(random.Random(seed).uniform(0.0, 0.2), device.runtime.close)
        closing.start()
        crowd.run()
        closing.join(60)
        device.runtime.close()
    assert [each for each in crowd.errors if not isinstance(each, BudgetError | CancelledError | StateError)] == []
    assert device.resources.engines._resident == {}
    assert all(engine.is_closed for engine in device.engines.values())


def test_real_engines_survive_it_too(tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    with leaves_no_thread(), Runtime.open(tiny_bundle, home=tmp_path, threads=1, build=True) as runtime:
        want = images(runtime)
        for seed in range(3):
            crowd = Crowd(runtime, seed, budget_ms=5, give_up_s=0.005)
            crowd.run()
            check(crowd, want)
            assert crowd.made
