"""Ways in which an application ends a request early, for `benchmarks.endurance`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from costroute_rt import CancelledError, Request, Result, Runtime, Stream

LONGEST_S = 0.1
"""Requests are cancelled up to so long after their start; some have ended by then."""
EVENTS = 4
"""Events that are read, at most, where a number of events decides instead of a time."""

Way = Callable[[Runtime, Request, float], bool]
"""Starts a request and ends it after the given seconds, or so; returns whether it ended as it should."""


def close(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Closes the stream after some events."""
    stream = runtime.stream(request)
    _read_some(stream, delay_s)
    stream.close()
    return next(stream, None) is None


def drop(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Drops the stream after some events, perhaps before the first."""
    _read_some(runtime.stream(request), delay_s)
    return True


def drop_elsewhere(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Drops the stream in another thread than the one that read it."""
    streams = [runtime.stream(request)]
    _read_some(streams[0], delay_s)
    thread = threading.Thread(target=streams.clear)
    thread.start()
    thread.join()
    return True


def close_elsewhere(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Closes the stream in another thread while this one reads it."""
    stream = runtime.stream(request)
    return _read_all(stream, threading.Timer(delay_s, stream.close))


def set_event(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Sets the event in another thread while this one reads the stream."""
    event = threading.Event()
    return _read_all(runtime.stream(request, cancel=event), threading.Timer(delay_s, event.set))


def stop_in_callback(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Returns False from the callback."""
    try:
        runtime.generate(request, on_step=lambda event: event.elapsed_ms < delay_s * 1000)
    except CancelledError:
        return True
    return True  # it ended sooner


def raise_in_callback(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Raises an error in the callback."""

    def fail(_: object) -> None:
        raise KeyError

    try:
        runtime.generate(request, on_step=fail)
    except KeyError:
        return True
    return False


def cancel_task(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Cancels the task of `generate_async`."""

    async def wait_for_image() -> None:
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(runtime.generate_async(request), delay_s)

    asyncio.run(wait_for_image())
    return True


def leave_loop(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Leaves the loop of `stream_async`, without closing the generator."""

    async def read_some() -> None:
        async for event in runtime.stream_async(request):
            if isinstance(event, Result) or event.index > delay_s / LONGEST_S * EVENTS:
                break

    asyncio.run(read_some())
    return True


def cancel_job(runtime: Runtime, request: Request, delay_s: float) -> bool:
    """Cancels a job."""
    job = runtime.submit(request)
    timer = threading.Timer(delay_s, job.cancel)
    timer.start()
    timer.join()
    return job.exception() is None or isinstance(job.exception(), CancelledError)


WAYS: tuple[Way, ...] = (
    close,
    drop,
    drop_elsewhere,
    close_elsewhere,
    set_event,
    stop_in_callback,
    raise_in_callback,
    cancel_task,
    leave_loop,
    cancel_job,
)


def _read_some(stream: Stream, delay_s: float) -> None:
    for _ in islice(stream, int(delay_s / LONGEST_S * EVENTS)):
        pass


def _read_all(stream: Stream, timer: threading.Timer) -> bool:
    """Reads the stream while the timer runs; returns whether nothing else than CancelledError ended it before its last event."""
    timer.start()
    with suppress(CancelledError):
        for _ in stream:
            pass
    timer.join()
    return next(stream, None) is None
