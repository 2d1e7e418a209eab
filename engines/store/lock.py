"""Locks of the store: one process at a time builds, measures, replaces or removes an engine.

locks/NAME.lock     the lock itself, by the system's own means: it ends with its process
locks/NAME.holder   who has it, for the others that wait
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from costroute_rt.engines.backends.polling import POLL_S
from costroute_rt.engines.machine.durable import make_folders, store_errors, write_file
from costroute_rt.engines.store.access import check_access, read_file
from costroute_rt.error import EngineError, Reason

REPORT_AFTER_S = 2.0
LIMIT_S = 7200.0
"""How long a lock is waited for: longer than a build may take."""
_HOLDER_BYTES = 4096
_NAME_LENGTH = 64

_log = logging.getLogger(__name__)


@contextmanager
def hold_lock(
    folder: Path,
    name: str,
    *,
    timeout_s: float | None = None,
    poll: Callable[[float | None], object] | None = None,
    on_wait: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Hold the lock `name` in `folder`, which is made if it is missing; waiting for longer than 2 s is reported with the lock's holder.

    timeout_s: raise TimeoutError after that time; without one, EngineError is raised after two hours.
    poll: called while another process holds the lock; what it raises ends the waiting.
    on_wait: called once if the lock is not free.
    """
    from filelock import FileLock  # slow to load, and not needed to read

    check_access(folder)
    with store_errors(folder):
        make_folders(folder)
        check_access(folder)  # another user could have made it first
        lock = FileLock(folder / f"{name}.lock")
        _wait(lock.acquire, folder / f"{name}.holder", timeout_s, poll, on_wait, clock)
    try:
        with _holding(folder / f"{name}.holder"):
            yield
    finally:
        lock.release()


def _wait(
    acquire: Callable[[float], object],
    holder: Path,
    timeout_s: float | None,
    poll: Callable[[float | None], object] | None,
    on_wait: Callable[[], object] | None,
    clock: Callable[[], float],
) -> None:
    """Call `acquire` with a short limit until it succeeds."""
    start, is_reported, limit_s = clock(), False, LIMIT_S if timeout_s is None else timeout_s
    waited_s, step_s = 0.0, 0.0
    while True:
        try:
            acquire(step_s)
            return
        except TimeoutError:
            if step_s == 0 and on_wait is not None:
                on_wait()
            if waited_s >= limit_s:
                if timeout_s is not None:
                    raise
                problem = f"{_describe_holder(holder)} has kept its lock for {waited_s / 60:.0f} minutes"
                raise EngineError(problem, reason=Reason.IN_USE, path=holder.with_suffix(".lock")) from None
        if not is_reported and waited_s >= REPORT_AFTER_S:
            is_reported = True
            _log.warning("waiting for %s, which is building, measuring or removing the same engine", _describe_holder(holder))
        if poll is not None:
            poll(None)
        waited_s = clock() - start
        step_s = POLL_S


@contextmanager
def _holding(holder: Path) -> Iterator[None]:
    """Record this process as the holder; a record that cannot be written is only missed by those who wait."""
    host = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    record = {"pid": os.getpid(), "user": _user(), "host": host}
    with suppress(OSError):
        write_file(holder, json.dumps(record).encode(), is_durable=False)
    try:
        yield
    finally:
        with suppress(OSError):
            holder.unlink()


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # an id without a name
        return f"uid {os.geteuid()}" if hasattr(os, "geteuid") else ""


def _describe_holder(holder: Path) -> str:
    """`process 4321 of bob on box`, as far as it is known."""
    try:
        record = json.loads(read_file(holder, _HOLDER_BYTES))
        pid, user, host = (record[name] for name in ("pid", "user", "host"))
        if type(pid) is int and all(isinstance(each, str) and each.isprintable() for each in (user, host)):
            owner, place = (f" {word} {each[:_NAME_LENGTH]}" if each else "" for word, each in (("of", user), ("on", host)))
            return f"process {pid}{owner}{place}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError, EngineError):
        pass
    return "another process"
