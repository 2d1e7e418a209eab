"""Requests of several threads and tasks at once: who waits, what is refused, and how requests end."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from costroute_rt import BudgetError, BusyError, CancelledError, ConfigError, EngineError, Reason, Result, Runtime, StateError
from costroute_rt.judgement import Judgement
from costroute_rt.result import StepEvent
from tests.runtime.fakes import FakeDevice, open_fake_runtime

PROMPT = "a red house by a lake"
ROW, DECODE = "tiny/base/guided_step", "tiny/vae/decode"


class Gate:
    """Stops the engine of a name, after some runs, until it is opened."""

    def __init__(self, device: FakeDevice, name: str, *, after: int = 0) -> None:
        self.name, self.left, self.reached, self.opened = name, after, threading.Event(), threading.Event()
        device.on_call.append(self._check)

    def _check(self, name: str) -> None:
        if name == self.name:
            self.left -= 1
            if self.left == -1:
                self.reached.set()
                assert self.opened.wait(60)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exception: object) -> None:
        self.opened.set()


class Thread(threading.Thread):
    """Calls a function and keeps what it returns or raises."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.function, self.result, self.error = function, None, None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.function()
        except Exception as error:
            self.error = error

    def end(self) -> Any:
        self.join(60)
        assert not self.is_alive()
        return self.error if self.error is not None else self.result


@pytest.fixture
def runtime(device: FakeDevice) -> Iterator[Runtime]:
    with device.runtime as runtime:
        yield runtime


def test_a_paused_stream_delays_nobody(device: FakeDevice, runtime: Runtime) -> None:
    paused = runtime.stream(PROMPT, candidate="base@8", seed=1)
    next(paused)
    result = Thread(lambda: runtime.generate(PROMPT, candidate="turbo@1", seed=1)).end()
    assert result.timings.waited_ms == 0
    assert isinstance(list(paused)[-1], Result)


def test_a_stream_can_be_advanced_by_any_thread(device: FakeDevice, runtime: Runtime) -> None:
    want = runtime.generate(PROMPT, candidate="base@4", seed=3).pixels
    stream = runtime.stream(PROMPT, candidate="base@4", seed=3)
    events = [Thread(lambda: next(stream)).end() for _ in range(5)]
    assert [type(event) for event in events] == [StepEvent] * 4 + [Result]
    np.testing.assert_array_equal(events[-1].pixels, want)


def test_interleaved_streams_give_the_pixels_of_each_alone(runtime: Runtime) -> None:
    prompts = [f"a lake {index}" for index in range(3)]
    want = [runtime.generate(prompt, candidate="base@4", seed=index).pixels for index, prompt in enumerate(prompts)]
    streams = [runtime.stream(prompt, candidate="base@4", seed=index) for index, prompt in enumerate(prompts)]
    for _ in range(4):
        for stream in streams:
            next(stream)
    for stream, pixels in zip(streams, want, strict=True):
        result = next(stream)
        assert isinstance(result, Result)
        np.testing.assert_array_equal(result.pixels, pixels)


def test_a_budget_includes_the_wait_and_a_later_deadline_gives_way(device: FakeDevice, runtime: Runtime) -> None:
    """The first request is preempted after a row by one that is due earlier, and makes up for it by dropping steps."""
    urgent: list[Thread] = []

    def start(name: str) -> None:
        if name == ROW and not urgent:
            urgent.append(Thread(lambda: runtime.generate(PROMPT, max_ms=150, seed=2)))
            device.wait_for_waiting(1)

    device.on_call.append(start)
    first = runtime.generate(PROMPT, candidate="base@8", max_ms=600, seed=1)
    second = urgent[0].end()
    assert second.met
    assert second.route.chosen.name == "turbo@2"
    assert first.timings.waited_ms == pytest.approx(second.actual_ms - second.timings.waited_ms, abs=8)
    assert first.met


def test_an_urgent_request_gets_no_time_that_others_were_promised(device: FakeDevice, runtime: Runtime) -> None:
    """base@8 needs 415 ms of 440: only the 25 ms that are left can be given away, and the fastest candidate needs 34."""
    refused: list[Thread] = []

    def start(event: StepEvent) -> None:
        if event.index == 1:
            refused.append(Thread(lambda: runtime.generate(PROMPT, max_ms=100, seed=2)))
            refused[0].join(60)

    first = runtime.generate(PROMPT, candidate="base@8", max_ms=440, seed=1, on_step=start)
    assert first.met
    assert first.replanned == 0
    error = refused[0].end()
    assert isinstance(error, BudgetError)
    assert error.max_ms == 100


def test_what_fits_nowhere_but_is_made_all_the_same_delays_no_accepted_request(device: FakeDevice, runtime: Runtime) -> None:
    """`or_fastest` with a tiny budget would be the most urgent of all; 25 ms can be spared, and it needs 34."""
    eager: list[Thread] = []
    routes = []

    def start(name: str) -> None:
        if name == ROW and not eager:
            options: dict[str, Any] = {"max_ms": 10, "or_fastest": True, "seed": 2}
            routes.append(runtime.route(PROMPT, **options))
            eager.append(Thread(lambda: runtime.generate(PROMPT, **options)))
            device.wait_for_waiting(1)

    device.on_call.append(start)
    first = runtime.generate(PROMPT, candidate="base@8", max_ms=440, seed=1)
    assert (first.met, first.replanned, first.timings.waited_ms) == (True, 0, 0)
    result = eager[0].end()
    assert result.route.chosen.name == "turbo@1"
    assert result.predicted_ms == pytest.approx(result.actual_ms, abs=2)
    assert result.predicted_ms == pytest.approx(routes[0].option.ms, abs=1)


def test_a_request_that_cannot_be_kept_is_refused_at_once(device: FakeDevice, runtime: Runtime) -> None:
    with Gate(device, ROW) as gate:
        running = Thread(lambda: runtime.generate(PROMPT, candidate="base@8", max_ms=430, seed=1))
        assert gate.reached.wait(60)
        with pytest.raises(BudgetError) as caught:
            runtime.generate(PROMPT, max_ms=440, seed=2)
        assert caught.value.max_ms == 440
        assert caught.value.fastest_ms > 415 + 30
    assert running.end().met


def test_a_request_that_waited_less_than_expected_gets_a_better_candidate(device: FakeDevice, runtime: Runtime) -> None:
    with Gate(device, ROW) as gate:
        running = runtime.submit(PROMPT, candidate="base@8", max_ms=500, seed=1)
        assert gate.reached.wait(60)
        waiting = Thread(lambda: runtime.generate(PROMPT, max_ms=510, seed=2))
        device.wait_for_waiting(1)
        running.cancel()
    assert isinstance(running.exception(60), CancelledError)
    result = waiting.end()
    assert result.route.chosen.name == "base@8"
    assert result.met


def test_a_request_that_waited_longer_than_expected_is_made_all_the_same(device: FakeDevice, runtime: Runtime) -> None:
    with Gate(device, ROW) as gate:
        running = Thread(lambda: runtime.generate(PROMPT, candidate="base@4", seed=1, max_ms=300))
        assert gate.reached.wait(60)
        waiting = Thread(lambda: runtime.generate(PROMPT, max_ms=310, seed=2))
        device.wait_for_waiting(1)
        device.clock.pass_ms(1000)
    assert not running.end().met
    result = waiting.end()
    assert not result.met
    assert result.timings.waited_ms > 1000


def test_cancelling_works_while_waiting(device: FakeDevice, runtime: Runtime) -> None:
    cancel = threading.Event()
    with Gate(device, ROW) as gate:
        running = Thread(lambda: runtime.generate(PROMPT, candidate="base@4", seed=1))
        assert gate.reached.wait(60)
        waiting = Thread(lambda: runtime.generate(PROMPT, seed=2, cancel=cancel))
        device.wait_for_waiting(1)
        cancel.set()
        assert isinstance(waiting.end(), CancelledError)
    assert isinstance(running.end(), Result)


def test_a_cancelled_request_is_cancelled_even_if_nothing_fits(runtime: Runtime) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        runtime.generate(PROMPT, max_ms=1, cancel=cancel)


def test_close_ends_what_runs_and_what_waits(device: FakeDevice, runtime: Runtime) -> None:
    paused = runtime.stream(PROMPT, seed=4)
    next(paused)
    with Gate(device, ROW) as gate:
        running = Thread(lambda: runtime.generate(PROMPT, candidate="base@8", seed=1))
        assert gate.reached.wait(60)
        waiting = [Thread(lambda: runtime.generate(PROMPT, seed=2)) for _ in range(3)]
        device.wait_for_waiting(3)
        closing = [Thread(runtime.close) for _ in range(3)]
        for each in waiting:
            assert isinstance(each.end(), StateError)
    assert isinstance(running.end(), StateError)
    for thread in closing:
        assert thread.end() is None
    assert all(engine.is_closed for engine in device.engines.values())
    assert device.resources.engines._resident == {}
    for call in (
        lambda: next(paused),
        lambda: runtime.submit(PROMPT),
        lambda: runtime.route(PROMPT),
        runtime.preload,
        lambda: runtime.plan([PROMPT], total_ms=9),
    ):
        with pytest.raises(StateError, match="closed"):
            call()
    assert list(paused) == []
    assert device.resources.engines._resident == {}


def test_a_stream_closed_by_another_thread_ends_after_its_row(device: FakeDevice, runtime: Runtime) -> None:
    stream = runtime.stream(PROMPT, candidate="base@8", seed=1)
    with Gate(device, ROW) as gate:
        advancing = Thread(lambda: list(stream))
        assert gate.reached.wait(60)
        stream.close()
    assert isinstance(advancing.end(), CancelledError)
    stream.close()
    assert list(stream) == []


def test_a_dropped_stream_leaves_the_queue(device: FakeDevice, runtime: Runtime) -> None:
    stream = runtime.stream(PROMPT, candidate="base@8", seed=1)
    next(stream)
    del stream
    assert not runtime._device._tickets
    assert not device.resources.engines._leases


@pytest.mark.parametrize("name", ["generate", "stream", "preload"])
def test_calling_the_runtime_from_its_own_callback_is_an_error_and_nothing_else(runtime: Runtime, name: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "generate": lambda: runtime.generate("another house", seed=2),
        "stream": lambda: list(runtime.stream("another house", seed=2)),
        "preload": runtime.preload,
    }
    errors: list[StateError] = []

    def ask_again(event: StepEvent) -> None:
        with pytest.raises(StateError, match="on_step") as caught:
            calls[name]()
        errors.append(caught.value)

    result = runtime.generate(PROMPT, candidate="turbo@2", seed=1, on_step=ask_again)
    assert [each.reason for each in errors] == [Reason.NESTED] * 2
    assert result.pixels.any()


def test_a_callback_may_route_submit_and_close(device: FakeDevice, runtime: Runtime) -> None:
    jobs = []

    def callback(event: StepEvent) -> None:
        assert runtime.route("another house").chosen.name == "base@8"
        jobs.append(runtime.submit("another house", candidate="turbo@1", seed=2))

    runtime.generate(PROMPT, candidate="turbo@2", seed=1, on_step=callback)
    assert all(job.result(60).pixels.any() for job in jobs)
    with pytest.raises(StateError, match="closed"):
        runtime.generate(PROMPT, candidate="turbo@2", seed=1, on_step=lambda event: runtime.close())
    assert all(engine.is_closed for engine in device.engines.values())


def test_max_waiting_refuses_more_requests(device: FakeDevice) -> None:
    with Runtime(device.resources, max_waiting=1) as runtime, Gate(device, ROW) as gate:
        running = runtime.submit(PROMPT, candidate="base@4", seed=1)
        assert gate.reached.wait(60)
        waiting = runtime.submit(PROMPT, candidate="turbo@1", seed=2)
        for refused in (runtime.generate, runtime.submit):
            with pytest.raises(BusyError) as caught:
                refused(PROMPT, seed=3)
            assert caught.value.max_waiting == 1
            assert caught.value.retry_after_ms > 0
        gate.opened.set()
        assert running.result(60).pixels.any()
        assert waiting.result(60).pixels.any()
        assert runtime.generate(PROMPT, seed=3).pixels.any()


def test_a_preload_gives_way_after_each_engine(device: FakeDevice, runtime: Runtime) -> None:
    requests: list[Thread] = []

    other = open_fake_runtime(device.resources.main_family.bundle, preload=False)
    opened = list[int]()

    def progress(event: object) -> None:
        if not requests:
            requests.append(Thread(lambda: runtime.generate(PROMPT, candidate="turbo@1", seed=1, max_ms=100)))
            device.wait_for_waiting(1)

    device.on_call.append(lambda name: opened.append(len(other.engines)))
    with Runtime(other.resources, device=runtime._device) as loading:
        loading.preload(progress=progress)
        requests[0].end()
    assert opened[0] == 1
    assert len(other.engines) == len(device.engines)


def test_a_preload_can_be_cancelled_and_closed_while_it_waits_for_its_turn(device: FakeDevice, runtime: Runtime) -> None:
    cancel = threading.Event()
    with Gate(device, ROW) as gate:
        running = runtime.submit(PROMPT, candidate="base@4", seed=1)
        assert gate.reached.wait(60)
        preloading = Thread(lambda: runtime.preload(cancel=cancel))
        device.wait_for_waiting(1)
        cancel.set()
        assert isinstance(preloading.end(), CancelledError)
        preloading = Thread(runtime.preload)
        device.wait_for_waiting(1)
        closing = Thread(runtime.close)
        assert isinstance(preloading.end(), StateError)
    closing.end()
    assert isinstance(running.exception(60), StateError)


class Averages:
    """Reads text states, as a router does, and gives averages."""

    needs_states = True
    engines: tuple[str, ...] = ()

    def judge(self, prompt: str, states: Any) -> Judgement:
        assert states is not None
        mean = np.array([0.5, 0.6, 0.8, 0.9])
        return Judgement(mean=mean, standard_error=0 * mean, basis="test")


def test_route_does_not_wait_for_an_image(open_device: Callable[..., FakeDevice]) -> None:
    device = open_device(quality=Averages())
    with device.runtime as runtime, Gate(device, ROW) as gate:
        running = runtime.submit(PROMPT, candidate="base@8", count=8, seed=1)
        assert gate.reached.wait(60)
        route = runtime.route("a boat", max_ms=600)
        assert route.option.cost.queue_ms > 0
        assert runtime.plan(["a boat", "a lake"], total_ms=2000)
        gate.opened.set()
        assert len(running.result(60).pixels) == 8


def test_only_the_latest_of_several_waiting_routes_is_computed(open_device: Callable[..., FakeDevice]) -> None:
    device = open_device(quality=Averages())
    cancel = threading.Event()
    with device.runtime as runtime, Gate(device, "tiny/text_encoder/encode") as gate:
        first = Thread(lambda: runtime.route("a", latest="field"))
        assert gate.reached.wait(60)
        other = Thread(lambda: runtime.route("b", cancel=cancel))
        stale = [Thread(lambda: runtime.route("a r", latest="field"))]
        while "field" not in runtime._latest or len(runtime._latest) != 1:
            threading.Event().wait(0.001)
        last = Thread(lambda: runtime.route("a red", latest="field"))
        cancel.set()
        assert isinstance(other.end(), CancelledError)
        gate.opened.set()
        routes = [each.end() for each in (first, *stale, last)]
        assert routes[-1].prompt == "a red"
        assert all(isinstance(each, CancelledError) or each.prompt for each in routes)
    assert runtime._latest == {}


def test_a_job_has_a_result_progress_and_callbacks(runtime: Runtime) -> None:
    events, ended = list[StepEvent](), threading.Event()
    job = runtime.submit(PROMPT, candidate="base@4", seed=1, on_step=events.append)
    result = job.result(60)
    assert (job.done, job.exception()) == (True, None)
    assert job.progress == events[-1]
    np.testing.assert_array_equal(result.pixels, runtime.generate(PROMPT, candidate="base@4", seed=1).pixels)
    job.add_done_callback(lambda each: ended.set())
    assert ended.wait(60)
    assert not job.cancel()


def test_a_job_can_be_cancelled_while_it_runs_and_while_it_waits(device: FakeDevice, runtime: Runtime) -> None:
    with Gate(device, ROW) as gate:
        running, waiting = runtime.submit(PROMPT, candidate="base@8", seed=1), None
        assert gate.reached.wait(60)
        waiting = runtime.submit(PROMPT, candidate="base@8", seed=1)
        with pytest.raises(TimeoutError, match=r"after 0\.01 s"):
            waiting.result(0.01)
        device.wait_for_waiting(1)
        assert waiting.cancel()
        with pytest.raises(CancelledError):
            waiting.result(60)
        assert running.cancel()
    with pytest.raises(CancelledError):
        running.result(60)
    assert device.engines[DECODE].calls == 1  # at opening


def test_the_errors_of_a_job_are_those_of_generate(device: FakeDevice, runtime: Runtime) -> None:
    with pytest.raises(ConfigError, match="nobody"):
        runtime.submit(PROMPT, candidate="nobody")
    assert isinstance(runtime.submit(PROMPT, max_ms=1).exception(60), BudgetError)
    job = runtime.submit(PROMPT, candidate="base@4", on_step=lambda event: event.index < 2)
    assert isinstance(job.exception(60), CancelledError)

    def fail(name: str) -> None:
        raise EngineError("it broke", reason=Reason.FAILED, engine=name)

    device.on_call.append(fail)
    error = runtime.submit(PROMPT).exception(60)
    assert isinstance(error, EngineError)
    assert error.setup is not None
    device.on_call.clear()
    assert runtime.generate(PROMPT).pixels.any()


def test_asyncio_clients_share_one_runtime(runtime: Runtime) -> None:
    want = {seed: runtime.generate(PROMPT, candidate="base@4", seed=seed).pixels for seed in range(4)}

    async def stream(seed: int) -> Result:
        kinds = []
        async for event in runtime.stream_async(PROMPT, candidate="base@4", seed=seed):
            kinds.append(type(event))
            await asyncio.sleep(0)
        assert kinds == [StepEvent] * 4 + [Result]
        assert isinstance(event, Result)
        return event

    async def main() -> list[Result]:
        events = list[StepEvent]()
        calls = [runtime.generate_async(PROMPT, candidate="base@4", seed=seed, on_step=events.append) for seed in range(2)]
        results = await asyncio.gather(*calls, stream(2), stream(3))
        assert len(events) == 8
        assert (await runtime.route_async(PROMPT)).chosen.name == "base@8"
        with pytest.raises(BudgetError):
            await runtime.generate_async(PROMPT, max_ms=1)
        with pytest.raises(CancelledError):
            await runtime.generate_async(PROMPT, on_step=lambda event: False)
        return list(results)

    for result in asyncio.run(main()):
        np.testing.assert_array_equal(result.pixels, want[result.seed])
    while runtime._device._tickets:  # the thread of a cancelled request ends after its caller was answered
        threading.Event().wait(0.001)


def test_advancing_streams_in_the_default_executor_loses_no_client(runtime: Runtime) -> None:
    """More clients than the executor has threads, each of which may be advanced by a different one every time."""

    async def client(seed: int) -> Result:
        stream = runtime.stream(PROMPT, candidate="turbo@2", seed=seed)
        while not isinstance(event := await asyncio.to_thread(next, stream), Result):
            pass
        return event

    async def main() -> list[Result]:
        return await asyncio.gather(*(client(seed) for seed in range(12)))

    assert [result.seed for result in asyncio.run(main())] == list(range(12))


def test_a_request_ends_if_the_event_loop_that_waits_for_it_is_closed(device: FakeDevice, runtime: Runtime) -> None:
    loop, events = asyncio.new_event_loop(), runtime.stream_async(PROMPT, candidate="base@8", seed=1)
    with Gate(device, ROW, after=3):
        loop.run_until_complete(anext(events))
        loop.close()
    while runtime._device._tickets:
        threading.Event().wait(0.001)
    assert device.engines[DECODE].calls == 1  # at opening


def test_cancelling_a_task_cancels_its_request(device: FakeDevice, runtime: Runtime) -> None:
    async def main() -> None:
        with Gate(device, ROW) as gate:
            task = asyncio.create_task(runtime.generate_async(PROMPT, candidate="base@8", seed=1))
            await asyncio.to_thread(gate.reached.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    while runtime._device._tickets:  # the row that ran when it was cancelled ends first
        threading.Event().wait(0.001)
    assert device.engines[DECODE].calls == 1  # at opening


def test_ending_the_iteration_of_an_async_stream_cancels_its_request(device: FakeDevice, runtime: Runtime) -> None:
    async def main() -> None:
        with Gate(device, ROW, after=2) as gate:
            async with aclosing(runtime.stream_async(PROMPT, candidate="base@8", seed=1)) as events:
                async for event in events:
                    assert isinstance(event, StepEvent)
                    break
                await asyncio.to_thread(gate.reached.wait, 60)

    asyncio.run(main())
    while runtime._device._tickets:
        threading.Event().wait(0.001)
    assert (device.engines[ROW].calls, device.engines[DECODE].calls) == (1 + 3, 1)  # one of each at opening


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_runtime_cannot_be_sent_to_another_process(runtime: Runtime, send: Callable[[Runtime], object]) -> None:
    with pytest.raises(StateError, match="another process; open one there"):
        send(runtime)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_learns_what_to_do_and_closes_nothing(device: FakeDevice, runtime: Runtime) -> None:
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        found = []
        for call in (runtime.generate, runtime.submit, runtime.route, runtime.stream):
            try:
                call(PROMPT)
            except StateError as error:
                found.append(str(error))
        runtime.close()
        open_engines = sum(not engine.is_closed for engine in device.engines.values())
        os.write(send, f"{len(found)} {found[0]} {open_engines}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(send)
    text = os.read(receive, 10_000).decode()
    os.close(receive)
    assert text.startswith("4 this runtime was opened by another process")
    assert "open one in each process" in text
    assert text.endswith(str(len(device.engines)))


def test_runtimes_and_jobs_have_a_short_repr(device: FakeDevice, runtime: Runtime) -> None:
    assert repr(runtime) == "<Runtime tiny: 4 candidates on fake cpu float32>"
    with Gate(device, ROW, after=2) as gate:
        job = runtime.submit(PROMPT, candidate="base@4", seed=1)
        assert gate.reached.wait(60)
        assert repr(job) == "<Job step 2 of 4>"
    job.result(60)
    assert repr(job) == "<Job done>"
    runtime.close()
    assert repr(runtime).endswith(", closed>")
