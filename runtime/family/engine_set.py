"""The engines of one runtime, opened when they are first needed."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from costroute_rt.engines.machine.memory import give_back_memory
from costroute_rt.error import EngineError, Reason, make_closed_error
from costroute_rt.family.memory import RESERVE_BYTES, MemoryLimit, choose_victim

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Phase:
    """Engines that a request uses together now, and those that it needs later, in order."""

    keep: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    extra_bytes: int = 0
    """Memory that the request needs beside its engines."""


class EngineSet:
    """Engines by name, `family/component/graph[@HEIGHTxWIDTH]`; an open engine is called resident. Safe to use from several threads.

    An engine itself must not be run by two threads at once.
    """

    def __init__(self, open_engine: Callable[[str], Engine], limit: MemoryLimit | None = None) -> None:
        """open_engine: opens the engine of a name; raises EngineError if it does not exist.

        limit: of the memory; with one, engines must be opened and run by one thread at a time, as others may leave for each.
        """
        self._open_engine, self.limit = open_engine, limit
        self._lock = threading.RLock()
        self._opening: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        """Held while the engine of a name is opened: others are used meanwhile."""
        self._resident: dict[str, Engine] = {}
        self._leases: set[Lease] = set()
        """Those that hold engines."""
        self._former: list[tuple[str, Engine]] = []
        """Engines that were replaced while a request still used them."""
        self._upgraded: list[Engine] = []
        """Engines that replaced others, perhaps of another backend."""
        self._is_closed = False

    def get(self, name: str, phase: Phase | None = None) -> Engine:
        """The engine, opened if it is not resident; raises EngineError, and StateError after `close`.

        phase: what the request needs beside it, if there is a limit of memory.
        """
        with self._lock:
            engine, opening = self._find_open(name), self._opening[name]
        if engine is not None:
            return engine
        with opening:
            with self._lock:
                engine = self._find_open(name)  # another thread may have opened it meanwhile
            if engine is None:
                if self.limit is not None:
                    self._make_room(self.limit, name, phase or Phase())
                engine = self._keep(name, self._open_engine(name))
            return engine

    def resident(self) -> list[str]:
        """Names of the open engines, the one not used for longest first."""
        with self._lock:
            return list(self._resident)

    def _make_room(self, limit: MemoryLimit, name: str, phase: Phase) -> None:
        """Close engines until this one can be loaded; raises EngineError if it cannot."""
        trimmed = False
        while not limit.has_room(self.resident(), name, phase.extra_bytes) or limit.is_short(name, phase.extra_bytes + RESERVE_BYTES):
            victim = choose_victim(self.resident(), phase.keep, phase.later)
            if victim is not None:
                self._evict(victim)
            elif trimmed:
                self._check_room(limit, name, phase)
                return
            trimmed = victim is None
            give_back_memory()

    def _check_room(self, limit: MemoryLimit, name: str, phase: Phase) -> None:
        """Raises EngineError if an engine does not fit although all others left that may."""
        if not limit.has_room(self.resident(), name, phase.extra_bytes) or limit.is_short(name, phase.extra_bytes):
            problem = f"loading it takes {limit.peak_of(name) >> 20} MB, which do not fit the limit of {limit.max_bytes >> 20} MB"
            raise EngineError(problem, reason=Reason.NO_MEMORY, engine=name)

    def _evict(self, name: str) -> None:
        """Close an engine, also if a request that does not run now still needs it: it is opened again for that."""
        with self._lock:
            engine = self._resident.pop(name, None)
            for lease in list(self._leases):
                lease.forget(name)
        if engine is not None:
            _log.info("closed engine %s to make room", name)
            _close(name, engine)

    def _find_open(self, name: str) -> Engine | None:
        if self._is_closed:
            raise make_closed_error()
        engine = self._resident.get(name)
        if engine is not None and self.limit is not None:  # in the order of use
            del self._resident[name]
            self._resident[name] = engine
        return engine

    def _keep(self, name: str, engine: Engine) -> Engine:
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._resident[name] = engine
        if is_closed:
            _close(name, engine)
            raise make_closed_error()
        _log.info("loaded engine %s on %s", name, engine.provider)
        return engine

    def of_family(self, family: str) -> Callable[[str, str], Engine]:
        """`get` for the usual engines of one family, by component and graph."""
        return lambda component, graph: self.get(f"{family}/{component}/{graph}")

    def find(self, name: str) -> Engine | None:
        """The engine if it is resident, else None."""
        return self._resident.get(name)

    def lease(self) -> Lease:
        """The engines as they are now, for one request: those it uses stay open until it releases them, even if they are replaced."""
        return Lease(self)

    def hold(self, name: str, lease: Lease, held: dict[str, Engine]) -> Engine:
        """`get`, and add the engine to those that the lease holds before it can be replaced."""
        while True:
            engine = self.get(name, lease.phase)
            with self._lock:
                if self._is_closed or self._resident.get(name) is engine:
                    self._leases.add(lease)
                    return held.setdefault(name, engine)

    def replace(self, engines: Mapping[str, Engine]) -> None:
        """Use other engines of these graphs for requests that start from now on, perhaps of another backend.

        After `close`, closes them.
        """
        with self._lock:
            if self._is_closed:
                unused = list(engines.items())
            else:
                self._former += [(name, self._resident[name]) for name in engines if name in self._resident]
                self._resident.update(engines)
                self._upgraded += engines.values()
                unused = self._take_unused()
        for name, engine in engines.items():
            _log.info("engine %s now runs on %s", name, engine.provider)
        _close_each(unused)

    def is_upgraded(self, engine: Engine) -> bool:
        """Whether it replaced another one."""
        return any(each is engine for each in self._upgraded)

    def release(self, lease: Lease) -> None:
        """End a lease; does nothing if it has ended."""
        with self._lock:
            self._leases.discard(lease)
            unused = self._take_unused()
        _close_each(unused)

    def _take_unused(self) -> list[tuple[str, Engine]]:
        """The replaced engines that no request uses, which are to be closed without the lock."""
        former, self._former = self._former, []
        unused = []
        for name, engine in former:
            if any(lease.holds(engine) for lease in list(self._leases)):  # a copy: a finalizer may end a lease in the middle
                self._former.append((name, engine))
            else:
                self._upgraded = [each for each in self._upgraded if each is not engine]
                unused.append((name, engine))
        return unused

    def unload(self) -> tuple[str, ...]:
        """Close every engine that no request uses, but those that replaced others, which could not be opened again; returns their names."""
        with self._lock:
            leases = list(self._leases)
            unused = [
                (name, engine)
                for name, engine in self._resident.items()
                if not self.is_upgraded(engine) and not any(lease.holds(engine) for lease in leases)
            ]
            for name, _ in unused:
                del self._resident[name]
        _close_each(unused)
        give_back_memory()
        return tuple(name for name, _ in unused)

    def close(self) -> None:
        """Close every engine, even if closing another one fails; later calls of `get` raise."""
        with self._lock:
            self._is_closed = True
            opening = list(self._opening.values())
        for each in opening:
            with each:  # waits for an engine that is being opened now, which is then closed at once
                pass
        with self._lock:
            engines = [*self._resident.items(), *self._former]
            self._resident, self._former, self._upgraded = {}, [], []
            self._leases.clear()
        _close_each(engines)


class Lease:
    """The engines that one request uses, which stay the same until its end."""

    def __init__(self, engines: EngineSet) -> None:
        self._engines = engines
        self._held: dict[str, Engine] = {}
        self.phase = Phase()
        """What the request needs now and later; only a limit of memory makes a difference."""

    @property
    def is_limited(self) -> bool:
        """Whether engines may leave while the request runs."""
        return self._engines.limit is not None

    def get(self, name: str) -> Engine:
        """The engine, opened if it is not resident."""
        held = None if self.is_limited else self._held.get(name)  # with a limit, the order of use counts
        return held or self._engines.hold(name, self, self._held)

    def forget(self, name: str) -> None:
        """Called when the engine left."""
        self._held.pop(name, None)

    def find(self, name: str) -> Engine | None:
        """The engine if it is resident, else None."""
        return self._held.get(name) or self._engines.find(name)

    def holds(self, engine: Engine) -> bool:
        """Whether the request uses this engine."""
        return any(each is engine for each in list(self._held.values()))

    @property
    def is_current(self) -> bool:
        """Whether none of the engines it uses was replaced."""
        return all(self._engines.find(name) is engine for name, engine in self._held.items())

    def move(self, value: Any, source: str, target: str) -> Any:
        """An output of engine `source`, moved to where engine `target` can read it; both are in use."""
        if self.is_limited:  # all engines run on the processor, and one of these may have left
            return value
        giver, taker = self._held[source], self._held[target]
        if self._engines.is_upgraded(giver) == self._engines.is_upgraded(taker):
            return value
        return taker.to_device(giver.to_host(value))

    def release(self) -> None:
        """End the use of these engines; replaced ones are closed if no other request uses them."""
        self._engines.release(self)
        self._held.clear()


def run_on_host(engine: Engine, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Run an engine on arrays in host memory; returns its outputs in host memory."""
    outputs = engine.run({name: engine.to_device(array) for name, array in arrays.items()})
    return {name: engine.to_host(value) for name, value in outputs.items()}


def _close_each(engines: Iterable[tuple[str, Engine]]) -> None:
    for name, engine in engines:
        _close(name, engine)


def _close(name: str, engine: Engine) -> None:
    try:
        engine.close()
    except Exception:  # whatever a backend raises, the other engines must be closed too
        _log.warning("engine %s could not be closed", name, exc_info=True)
