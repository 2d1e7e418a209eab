"""Waiting for a lock of the store that another process holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from costroute_rt.engines.backends.polling import POLL_S
from costroute_rt.engines.store.store import Store


@contextmanager
def hold_lock(
    store: Store, name: str, poll: Callable[[float | None], object] | None, on_wait: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold a lock of the store; while another process holds it, `poll` is called, and what that raises ends the waiting.

    on_wait: called once if the lock is not free.
    """
    with ExitStack() as stack:
        is_waiting = False
        while True:
            try:
                stack.enter_context(store.lock(name, timeout_s=POLL_S if is_waiting else 0))
                break
            except TimeoutError:
                if not is_waiting and on_wait is not None:
                    on_wait()
                is_waiting = True
                if poll is not None:
                    poll(None)
        yield
