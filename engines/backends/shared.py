"""Open engines shared by all runtimes of this process: a second one of the same bundle loads nothing again.

Each user has a handle; the last one that is closed closes the engine. A forked process shares nothing with its parent and closes nothing
of it: libraries do not survive a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

import numpy.typing as npt

from costroute_rt.engines.backends.engine import Engine, Value
from costroute_rt.engines.backends.key import EngineKey, make_engine_error
from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.engines.machine.memory import give_back_memory
from costroute_rt.error import Reason


@dataclass
class _Entry:
    """One engine, with the number of its handles, those being opened included."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held while the engine is opened, runs, or is closed."""
    engine: Engine | None = None
    handles: int = 0


@dataclass
class _Process:
    """The open engines of one process, by what they were opened from."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    """May be taken again by the thread that has it: by a finalizer that closes an engine."""
    entries: WeakValueDictionary[Hashable, _Entry] = field(default_factory=WeakValueDictionary)
    """Weak, so that engines whose handles were dropped without being closed are freed too."""


_processes: dict[int, _Process] = {}
"""By process number: after a fork there is a second entry, and the first is left alone, with locks that may be held for ever."""


def share_engine(identity: Hashable, open_engine: Callable[[], Engine]) -> SharedEngine:
    """A handle of the open engine of that identity; opens it if there is none. Safe to call from several threads."""
    process = _here()
    with process.lock:
        entry = process.entries.get(identity)
        if entry is None:
            entry = process.entries[identity] = _Entry()
        entry.handles += 1
    try:
        with entry.turn:
            if entry.engine is None:
                entry.engine = open_engine()
            return SharedEngine(entry, entry.engine, lambda: _release(process, identity, entry))
    except BaseException:
        _release(process, identity, entry)
        raise


def open_count() -> int:
    """Number of shared engines that are open in this process."""
    return len(_here().entries)


class SharedEngine:
    """A handle of an engine that others may use too; its runs take turns with theirs."""

    def __init__(self, entry: _Entry, engine: Engine, release: Callable[[], None]) -> None:
        self._entry, self._engine, self._release = entry, engine, release
        self._pid, self._is_closed, self._closing = os.getpid(), False, threading.Lock()

    @property
    def key(self) -> EngineKey | None:
        return self._engine.key

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._engine.inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._engine.outputs

    @property
    def resident_bytes(self) -> int:
        return self._engine.resident_bytes

    @property
    def provider(self) -> str:
        return self._engine.provider

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        with self._entry.turn:
            if self._is_closed:
                raise make_engine_error("the engine is closed", Reason.CLOSED, None, self._engine.key)
            return self._engine.run(feeds)

    def to_device(self, array: npt.NDArray[Any]) -> Value:
        return self._engine.to_device(array)

    def to_host(self, value: Value) -> npt.NDArray[Any]:
        return self._engine.to_host(value)

    def close(self) -> None:
        with self._closing:
            is_first, self._is_closed = not self._is_closed, True
        if is_first and self._pid == os.getpid():
            self._release()

    def __enter__(self) -> SharedEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _here() -> _Process:
    pid = os.getpid()
    return _processes.get(pid) or _processes.setdefault(pid, _Process())


def _release(process: _Process, identity: Hashable, entry: _Entry) -> None:
    """Give up one handle; the last one closes the engine, after a run that another thread has not ended."""
    with process.lock:
        entry.handles -= 1
        if entry.handles:
            return
        process.entries.pop(identity, None)
    with entry.turn:
        engine, entry.engine = entry.engine, None
        if engine is not None:
            engine.close()
        del engine
    if not process.entries:
        give_back_memory()
