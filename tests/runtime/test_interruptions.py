"""What interrupts a thread in the middle of its work: exceptions of signal handlers such as Ctrl-C, `close`, and calls from callbacks."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from costroute_rt import CancelledError, ConfigError, Reason, Runtime, StateError
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.family.engine_set import EngineSet
from costroute_rt.generation import autoencoder, preview
from costroute_rt.generation.conditioner import Conditioner
from costroute_rt.generation.engine_use import EngineUse
from costroute_rt.generation.generation import Generation
from costroute_rt.generation.queue import Device
from costroute_rt.generation.report import Report
from costroute_rt.generation.stream import Stream
from costroute_rt.judgement import Judgement
from costroute_rt.result import StepEvent
from tests.runtime.fakes import FakeDevice, open_fake_runtime

PROMPT = "a red house by a lake"
ENCODE = "tiny/text_encoder/encode"
GENERATION = (Generation, EngineUse, Conditioner, autoencoder, preview, Report)
FILES = [inspect.getfile(each) for each in (Runtime, Device, Stream, *GENERATION, EngineSet)]
LINES = {file: Path(file).read_text("utf-8").splitlines() for file in FILES}
"""Of the code to interrupt, read when it is imported: later its files may have been edited, or be gone for a moment."""


class InterruptError(BaseException):
    """What a signal handler raises."""


class Averages:
    """Reads text states, as a router does, and gives averages."""

    needs_states = True
    engines: tuple[str, ...] = ()

    def judge(self, prompt: str, states: Any) -> Judgement:
        mean = np.array([0.5, 0.6, 0.8, 0.9])
        return Judgement(mean=mean, standard_error=0 * mean, basis="test")


class Interruption:
    """Raises InterruptError at the line of that number, counted over all lines of the files that run."""

    def __init__(self, at: int) -> None:
        self.left = at

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        lines = LINES.get(frame.f_code.co_filename)
        if lines is None:
            return None
        # At the end of a block, the line of its `with` is traced before its lock is released; no signal is handled there, nor at a `try`.
        if event == "line" and not lines[frame.f_lineno - 1].strip().startswith(("with ", "try:")):
            self.left -= 1
            if self.left == 0:
                raise InterruptError
        return self.trace

    def interrupt(self, call: Callable[[], object]) -> InterruptError | None:
        """The exception, with the frames it passed through; None if it came too late, or in a finalizer."""
        former = sys.gettrace()
        sys.settrace(self.trace)
        try:
            call()
        except InterruptError as error:
            return error
        finally:
            sys.settrace(former)
        return None


def has_free_locks(device: FakeDevice) -> bool:
    locks, free = (device.runtime._device._lock, device.resources.reading._lock, device.resources.engines._lock), []

    def check() -> None:
        free.extend(lock.acquire(blocking=False) for lock in locks)
        for lock, is_free in zip(locks, free, strict=True):
            if is_free:
                lock.release()

    thread = threading.Thread(target=check)
    thread.start()
    thread.join(60)
    return all(free)


@pytest.mark.filterwarnings("ignore:Exception ignored in.*__del__:pytest.PytestUnraisableExceptionWarning")
def test_an_exception_at_any_line_leaves_nothing_in_the_queue(bundle: Bundle) -> None:
    """The exception is kept, with all frames, as an interactive session does: nothing is cleaned up by dropping objects."""
    device, at = open_fake_runtime(bundle, quality=Averages()), 0
    runtime, queue = device.runtime, device.runtime._device
    while True:
        at += 1
        options = {"candidate": "turbo@1", "seed": 1, "max_ms": 1000}
        interruption = Interruption(at)
        kept = interruption.interrupt(lambda options=options: runtime.generate(PROMPT, on_step=lambda event: None, **options))
        if interruption.left > 0:
            break
        assert (queue._running, queue._waiting, has_free_locks(device)) == (None, {}, True), at
        left = {"tickets": len(queue._tickets), "leases": len(device.resources.engines._leases)}
        if any(left.values()):  # in the last lines that clean up, or just before: dropping the stream does the rest
            del kept
            left = {"tickets": len(queue._tickets), "leases": len(device.resources.engines._leases)}
        assert left == {"tickets": 0, "leases": 0}, at
    assert at > 200
    assert runtime.generate(PROMPT, candidate="turbo@1", seed=1).pixels.any()


@pytest.mark.parametrize("call", [Runtime.generate, Runtime.route])
def test_closing_in_a_signal_handler_while_a_prompt_is_judged(bundle: Bundle, call: Callable[..., object]) -> None:
    device, seen = open_fake_runtime(bundle, quality=Averages()), []

    def handler(name: str) -> None:
        device.runtime.close()
        seen.append((name, device.engines[name].is_closed))

    device.on_call.append(handler)
    if call is Runtime.generate:
        with pytest.raises(StateError, match="closed"):
            call(device.runtime, PROMPT)
    else:
        call(device.runtime, PROMPT)
    assert seen == [(ENCODE, False)]  # it was not closed while it ran
    assert all(engine.is_closed for engine in device.engines.values())


def test_another_thread_that_ends_releases_no_engine_that_an_interrupted_one_runs(device: FakeDevice) -> None:
    """`close` in a signal handler leaves the engines to the request that it interrupted, not to the first that ends."""
    waiting, closed = [], []

    def handler(name: str) -> None:
        if name == "tiny/base/guided_step" and not waiting:
            waiting.append(device.runtime.submit(PROMPT, seed=2))
            device.wait_for_waiting(1)
            device.runtime.close()
            assert isinstance(waiting[0].exception(60), StateError)
            closed.extend(engine.is_closed for engine in device.engines.values())

    device.on_call.append(handler)
    with pytest.raises(StateError, match="closed"):
        device.runtime.generate(PROMPT, candidate="base@4", seed=1)
    assert not any(closed)
    assert all(engine.is_closed for engine in device.engines.values())


def test_closing_another_runtime_of_the_same_device_in_the_middle_of_work(bundle: Bundle, device: FakeDevice) -> None:
    other = open_fake_runtime(bundle)
    runtime = Runtime(other.resources, device=device.runtime._device)
    device.on_call.append(lambda name: runtime.close())
    device.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    assert all(engine.is_closed for engine in other.engines.values())


@pytest.mark.parametrize("preload", [True, False])
def test_a_request_in_the_middle_of_work_of_its_own_thread_is_refused(bundle: Bundle, preload: bool) -> None:
    """It would wait for itself."""
    device, errors = open_fake_runtime(bundle, preload=False), list[StateError]()
    other = Runtime(open_fake_runtime(bundle).resources, device=device.runtime._device)

    def call(*arguments: object) -> None:
        for runtime in (device.runtime, other):
            with pytest.raises(StateError, match="middle of its thread's work") as caught:
                runtime.generate(PROMPT)
            errors.append(caught.value)

    if preload:
        device.runtime.preload(progress=lambda event: None if event.done == event.total else call())
    else:
        device.on_call.append(call)
        device.runtime.generate(PROMPT, candidate="turbo@1")
    assert {each.reason for each in errors} == {Reason.NESTED}


def test_progress_of_a_preload_may_close_the_runtime(bundle: Bundle) -> None:
    device = open_fake_runtime(bundle, preload=False)
    with pytest.raises(StateError, match="closed"):
        device.runtime.preload(progress=lambda event: device.runtime.close())
    assert all(engine.is_closed for engine in device.engines.values())
    assert device.resources.engines._resident == {}


def test_a_stream_that_is_closed_while_it_advances_leaves_the_queue(device: FakeDevice) -> None:
    stream = device.runtime.stream(PROMPT, candidate="base@8", seed=1)
    device.on_call.append(lambda name: stream.close() if name == "tiny/base/guided_step" else None)
    with pytest.raises(CancelledError):
        next(stream)
    assert not device.runtime._device._tickets
    assert list(stream) == []


def test_an_ended_job_keeps_no_tensors(device: FakeDevice) -> None:
    events = list[StepEvent]()
    job = device.runtime.submit(PROMPT, candidate="base@4", seed=1, on_step=events.append)
    job.result(60)
    generation = job._stream._generation
    assert (generation._run, generation._conditioner._encoded, generation._engines.lease._held) == (None, {}, {})


@pytest.mark.parametrize("max_waiting", [-1, 0.5, "many"])
def test_a_wrong_limit_is_refused_before_anything_is_opened(tmp_path: Path, max_waiting: Any) -> None:
    """Nobody would close it, nor end its background build."""
    with pytest.raises(ConfigError, match="max_waiting"):
        Runtime.open(tmp_path / "missing", max_waiting=max_waiting)
