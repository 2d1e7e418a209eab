"""Closing a runtime while a stream is paused: no engine opens again, no thread waits for ever, and closing twice is no error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from costroute_rt import Runtime, StateError
from costroute_rt.engines.bundle.bundle import Bundle
from tests.runtime.fakes import FakeDevice, open_fake_runtime


@pytest.fixture
def device(tiny_bundle: Path) -> FakeDevice:
    return open_fake_runtime(Bundle.open(tiny_bundle))


def in_this_thread(call: Callable[[], None]) -> None:
    call()


def in_another_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("where", [in_this_thread, in_another_thread])
def test_f25_a_paused_stream_ends_and_opens_no_engine_after_close(tiny_bundle: Path, where: Callable[..., None], preload: bool) -> None:
    device = open_fake_runtime(Bundle.open(tiny_bundle), preload=preload)
    stream = device.runtime.stream("a lake", candidate="base@4", seed=1)
    next(stream)
    opened = list(device.engines)
    where(device.runtime.close)
    with pytest.raises(StateError, match="closed"):
        next(stream)
    assert list(stream) == []
    assert list(device.engines) == opened
    assert all(engine.is_closed for engine in device.engines.values())
    assert device.resources.engines._resident == {}
    stream.close()


def test_f25_a_stream_that_has_not_started_ends_too(device: FakeDevice) -> None:
    stream = device.runtime.stream("a lake", seed=1)
    device.runtime.close()
    with pytest.raises(StateError, match="closed"):
        next(stream)


def test_f25_closing_again_or_from_many_threads_is_no_error(device: FakeDevice) -> None:
    errors = list[Exception]()
    start = threading.Barrier(8)

    def close() -> None:
        start.wait(60)
        try:
            device.runtime.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    device.runtime.close()
    with device.runtime:
        pass
    assert errors == []


@pytest.mark.parametrize("call", ["generate", "stream", "route", "submit", "preload", "plan"])
def test_f25_every_call_after_close_says_that_it_is_closed(device: FakeDevice, call: str) -> None:
    runtime: Runtime = device.runtime
    runtime.close()
    arguments = {"preload": (), "plan": (["a lake"],)}.get(call, ("a lake",))
    keywords = {"plan": {"total_ms": 100}}.get(call, {})
    with pytest.raises(StateError, match="open another one"):
        getattr(runtime, call)(*arguments, **keywords)
    assert runtime.candidates
    assert runtime.family == "tiny"
