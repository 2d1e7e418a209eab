"""The right to run text encoders and the router."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL_S = 0.02


class Reading:
    """Held by one thread at a time: prompts are judged beside the denoiser of another request, and engines take no two runs at once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._thread: int | None = None

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread holds it."""
        return self._thread == threading.get_ident()

    @contextmanager
    def held(self, check: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Wait for it, and hold it until the block ends; a thread that holds it may do so again.

        check: called now and then while waiting, and at the end of that; what it raises ends the waiting.
        """
        while not self._lock.acquire(timeout=_POLL_S):
            check()
        former = self._thread
        try:
            self._thread = threading.get_ident()
            check()
            yield
        finally:
            self._thread = former
            self._lock.release()
