"""Streams of asyncio clients, each advanced by whatever thread is free: ownership does not go by thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from costroute_rt import Result, Runtime
from costroute_rt.engines.bundle.bundle import Bundle
from tests.runtime.fakes import open_fake_runtime


@pytest.fixture
def runtime(tiny_bundle: Path) -> Runtime:
    return open_fake_runtime(Bundle.open(tiny_bundle)).runtime


@pytest.mark.parametrize("clients", [1, 6, 12, 40])
def test_f24_all_clients_that_advance_streams_in_the_default_executor_finish(runtime: Runtime, clients: int) -> None:
    async def client(seed: int) -> Result:
        stream = runtime.stream("a lake", candidate="turbo@2", seed=seed)
        while not isinstance(event := await asyncio.to_thread(next, stream), Result):
            pass
        return event

    async def main() -> list[Result]:
        return await asyncio.gather(*(client(seed) for seed in range(clients)))

    assert [result.seed for result in asyncio.run(main())] == list(range(clients))


def test_f24_a_thread_that_ended_with_an_unfinished_stream_blocks_nobody(runtime: Runtime) -> None:
    """Its number is given to the next thread that starts."""
    streams = []

    def leave_unfinished() -> None:
        streams.append(runtime.stream("a lake", seed=1))
        next(streams[-1])

    results = list[Result]()
    calls = (
        leave_unfinished,
        lambda: results.append(runtime.generate("a house", seed=2)),
        lambda: results.append(list(streams[0])[-1]),
    )
    for call in calls:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
    assert [result.seed for result in results] == [2, 1]


def test_f24_one_thread_may_hold_several_unfinished_streams(runtime: Runtime) -> None:
    streams = [runtime.stream("a lake", seed=seed) for seed in range(3)]
    for stream in streams:
        next(stream)
    assert runtime.generate("a house", seed=9).seed == 9
    assert [list(stream)[-1].seed for stream in reversed(streams)] == [2, 1, 0]  # type: ignore[union-attr]
