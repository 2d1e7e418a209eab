"""The end of the process: open runtimes are closed before the libraries that run their engines are torn down."""

from __future__ import annotations

import atexit
import threading
import weakref
from contextlib import ExitStack
from typing import Protocol


class Closable(Protocol):
    """A runtime."""

    def close(self) -> None: ...


_open: weakref.WeakValueDictionary[int, Closable] = weakref.WeakValueDictionary()
"""By `id`."""
_exiting = threading.Event()


def close_at_exit(closable: Closable) -> None:
    """Close it when the interpreter exits, if it exists by then."""
    if not _open:
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    _open[id(closable)] = closable


def stop_if_exiting() -> None:
    """Never return in a daemon thread of a process that exits: what it would raise there is of no use to anyone."""
    if _exiting.is_set() and threading.current_thread().daemon:
        threading.Event().wait()


def _close_all() -> None:
    _exiting.set()
    with ExitStack() as stack:  # closes all, even if closing one of them fails
        for reference in _open.valuerefs():  # a copy: other threads may open runtimes now
            if (closable := reference()) is not None:
                stack.callback(closable.close)
