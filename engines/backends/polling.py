"""Long calls into a library, followed from the thread that waits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

_log = logging.getLogger(__name__)

POLL_S = 0.1
_PATIENCE_S = 0.5
Value = TypeVar("Value")


def run_polled(
    work: Callable[[], Value], poll: Callable[[float | None], object] | None, *, what: str, stop: Callable[[], object] | None = None
) -> Value:
    """Run `work` in another thread and call `poll` in this one ten times a second; returns what `work` returns.

    What `poll` raises, or Ctrl-C, calls `stop` and passes through once `work` has ended. Without `poll`, `work` runs in this thread.

    poll: called with the share of the work that is done, which is None (unknown) here.
    what: the work, as a noun, for the warning that a call cannot be interrupted.
    """
    if poll is None:
        return work()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="costroute-rt call") as pool:
        future = pool.submit(work)
        try:
            while not wait([future], timeout=POLL_S).done:
                poll(None)
        except BaseException:  # on any error, Ctrl-C too, the work has to end before its thread does
            if stop is not None:
                with suppress(Exception):
                    stop()
            if not wait([future], timeout=_PATIENCE_S).done:
                _log.warning("cancelled: waiting for %s, which cannot be interrupted", what)
            raise
    return future.result()
