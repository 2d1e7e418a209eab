"""Long calls into a library, followed from the thread that waits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from threading import Thread
from typing import TypeVar

from costroute_rt.error import EngineError

_log = logging.getLogger(__name__)

POLL_S = 0.1
_PATIENCE_S, _GIVE_UP_S = 0.5, 5.0
Value = TypeVar("Value")


class LimitError(EngineError):
    """The work on an engine took more time or memory than it may; remedy: free time or memory, or use another bundle."""


def run_polled(
    work: Callable[[], Value], poll: Callable[[float | None], object] | None, *, what: str, stop: Callable[[], object] | None = None
) -> Value:
    """Run `work` in another thread and call `poll` in this one ten times a second; returns what `work` returns.

    What `poll` raises, or Ctrl-C, calls `stop` and passes through once `work` has ended; a LimitError passes through after a few seconds,
    even if `work` goes on. Without `poll`, `work` runs in this thread.

    poll: called with the share of the work that is done, which is None (unknown) here.
    what: the work, as a noun, for the warning that a call cannot be interrupted.
    """
    if poll is None:
        return work()
    future = Future[Value]()
    thread = Thread(target=_run, args=(work, future), name="costroute-rt call", daemon=True)  # one that never ends keeps no process alive
    thread.start()
    try:
        while not wait([future], timeout=POLL_S).done:
            poll(None)
    except BaseException as error:  # on any error, Ctrl-C too, the work has to end before its thread does
        if stop is not None:
            with suppress(Exception):
                stop()
        if not wait([future], timeout=_PATIENCE_S).done:
            _log.warning("cancelled: waiting for %s, which cannot be interrupted", what)
            if not wait([future], timeout=_GIVE_UP_S if isinstance(error, LimitError) else None).done:
                _log.warning("%s does not end: it goes on until this process ends", what)
        raise
    finally:
        if future.done():
            thread.join()
    return future.result()


def _run(work: Callable[[], Value], future: Future[Value]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # passed on to the thread that waits
        future.set_exception(error)
