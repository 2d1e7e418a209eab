"""Background builds: another process builds better engines; this one opens them and swaps them in between two requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from costroute_rt.engines.building.progress import Clock, Step, remaining_s
from costroute_rt.engines.store.cost import EngineCost
from costroute_rt.error import CostrouteError

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine
    from costroute_rt.engines.backends.setup import Setup

_log = logging.getLogger(__name__)


class Builder(Protocol):
    """The interface of `engines.building.background.Builder`, which runs the building process."""

    def events(self) -> Iterator[dict[str, Any]]: ...
    def close(self) -> None: ...
    def release(self) -> None: ...


class Builders:
    """Builders of several bundles, one after the other, as one builder: a later one starts when the one before is done."""

    def __init__(self, starts: Sequence[Callable[[], Builder]]) -> None:
        """starts: start the builders; the first is started at once, and raises EngineError if it cannot be."""
        self._starts, self._lock = list(starts[1:]), threading.Lock()
        self._current, self._is_closed = starts[0](), False

    def events(self) -> Iterator[dict[str, Any]]:
        """The events of all of them; `done` comes once, at the end, and the first failure ends them."""
        while True:
            last = {"state": "failed", "reason": "it ended without a reason"}
            for event in self._current.events():
                last = event
                if event["state"] not in ("done", "failed"):
                    yield event
            if last["state"] == "failed" or not self._starts:
                yield last
                return
            self._start_next()

    def _start_next(self) -> None:
        with self._lock:
            self._current.release()
            self._current = self._starts.pop(0)()
            if self._is_closed:
                self._current.close()

    def close(self) -> None:
        with self._lock:
            self._is_closed, self._starts = True, []
            self._current.close()

    def release(self) -> None:
        self._current.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """State of a background build."""

    backend: str
    provider: str
    precision: str
    graph: str | None
    """Engine being built now; None before the first, between two, and after the end."""
    done: int
    """Number of engines that are in use, ready, or rejected."""
    total: int
    share: float | None
    """Finished share of the engine being built now, 0 to 1; None if it is unknown."""
    rejected: Mapping[str, str]
    """Engines that did not pass their check, with the reason; the engines that they should replace stay in use."""
    problem: str | None
    """Reason why the build ended early; None if it did not."""
    elapsed_s: float
    """Seconds since the build began, or from then to its end."""
    remaining_s: float | None
    """Expected seconds for the engines that are not done, from recorded builds and those that are done; None if nothing is known."""

    is_over: bool
    """Whether the build has ended; the engines that passed their checks are used from the next request on, all at once."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        return {
            "backend": self.backend,
            "provider": self.provider,
            "precision": self.precision,
            "graph": self.graph,
            "done": self.done,
            "total": self.total,
            "share": self.share,
            "rejected": dict(self.rejected),
            "problem": self.problem,
            "elapsed_s": self.elapsed_s,
            "remaining_s": self.remaining_s,
            "is_over": self.is_over,
        }


class Upgrade:
    """Follows a builder and, when it is done, offers all its engines at once. Safe to use from several threads."""

    def __init__(
        self,
        builder: Builder | None,
        open_ready: Callable[[str], Engine],
        read_cost: Callable[[str], EngineCost],
        *,
        setup: Setup,
        steps: Sequence[Step],
        recorded: Mapping[str, EngineCost],
        rejected: Mapping[str, str] | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """builder: None if nothing is left to build.

        open_ready: opens an engine that was built and runs it once; called from this object's thread.
        read_cost: returns the cost of an engine that was built.
        setup: setup of the engines being built.
        steps: the builds, in order, with the expected time of each.
        recorded: costs of earlier builds of these engines, by name.
        rejected: engines that are known to be unusable, with the reason.
        """
        self._builder, self._open_ready, self._read_cost = builder, open_ready, read_cost
        self._setup = setup
        self._steps = {str(step.engine): step for step in steps}
        self._took_s: dict[Step, float] = {}
        self._share: float | None = None
        self._clock = clock
        self._began_s = self._since_s = clock()
        self._ended_s = self._began_s if builder is None else None
        self._costs = dict(recorded)
        self._lock = threading.RLock()  # a handler of the warnings below may ask for `status`
        self._ready: dict[str, EngineCost] = {}
        self._opened: dict[str, tuple[Engine, EngineCost]] = {}
        self._rejected: dict[str, str] = {}
        self._is_over = builder is None
        self._graph: str | None = None
        self._problem: str | None = None
        self._is_closed = False
        for name, reason in (rejected or {}).items():
            self._reject(name, reason)
        self._thread = threading.Thread(target=self._follow, name="costroute-rt upgrade", daemon=True)
        self._thread.start()

    def status(self) -> Building:
        """The current state of the build."""
        with self._lock:
            left = [step for name, step in self._steps.items() if not self._is_done(name)]
            now = self._clock() if self._ended_s is None else self._ended_s
            current = self._steps.get(self._graph or "")
            rest_s = remaining_s(left, self._took_s, current, now - self._since_s, self._share)
            return Building(
                backend=self._setup.backend,
                provider=self._setup.provider,
                precision=self._setup.precision,
                graph=self._graph,
                done=len(self._steps) - len(left),
                total=len(self._steps),
                share=self._share,
                rejected=dict(self._rejected),
                problem=self._problem,
                elapsed_s=round(now - self._began_s, 3),
                remaining_s=None if rest_s is None else round(rest_s, 3),
                is_over=self._is_over,
            )

    def expected_costs(self, names: Collection[str]) -> dict[str, EngineCost] | None:
        """Costs of the engines among `names` that are being built or ready; None if there are none, or if a cost is unknown."""
        with self._lock:
            is_coming = bool(self._opened) or not self._is_over
            coming = [name for name in names if is_coming and name in self._steps and name not in self._rejected]
            known = {name: self._costs[name] for name in coming if name in self._costs}
        return known if known and len(known) == len(coming) else None

    def take(self) -> dict[str, tuple[Engine, EngineCost]]:
        """All new engines with their costs, by name, once the build has ended; empty before. The caller then owns the engines."""
        if not self._opened:
            return {}
        with self._lock:
            opened, self._opened = self._opened, {}
        return opened

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the build has ended; returns False if `timeout_s` passed before."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """End the builder, and close the engines that were not taken."""
        self._is_closed = True
        if self._builder is not None:
            self._builder.close()
        self._thread.join()
        for engine, _ in self.take().values():
            engine.close()

    def _is_done(self, name: str) -> bool:
        return name in self._ready or name in self._rejected

    def _follow(self) -> None:
        if self._builder is None:
            return
        try:
            for event in self._builder.events():
                self._note(event)
        except Exception as error:  # any error must be reported here: nothing else watches this thread
            self._builder.close()
            self._note({"state": "failed", "reason": _describe(error)})
        finally:
            self._builder.release()

    def _note(self, event: Mapping[str, Any]) -> None:
        name, state = event.get("engine"), event["state"]
        if state == "building" and name == self._graph:  # how far it is
            with self._lock:
                self._share = event.get("share")
            return
        if state == "done" and not self._is_closed:
            self._open_all()
        with self._lock:
            self._start(name if state == "building" else None)
            if name is not None and state == "ready":
                self._ready[name] = self._costs[name] = self._read_cost(name)
            elif name is not None and state == "rejected":
                self._reject(name, event["reason"])
            elif state == "failed":
                self._problem = event["reason"]
            if state in ("done", "failed"):
                self._is_over, self._ended_s = True, self._clock()
        if state == "failed" and not self._is_closed:
            _log.warning("the background build ended; the engines in use stay: %s", event["reason"])

    def _start(self, engine: str | None) -> None:
        """Another engine is being built now, or none."""
        now = self._clock()
        if self._graph in self._steps:
            self._took_s[self._steps[self._graph]] = now - self._since_s
        self._graph, self._share, self._since_s = engine, None, now

    def _open_all(self) -> None:
        """Open the engines that are ready; if one fails, reject all, because they were checked together."""
        opened = dict[str, tuple["Engine", EngineCost]]()
        try:
            for name, cost in self._ready.items():
                opened[name] = self._open_ready(name), cost
        except Exception as error:  # whatever a backend raises, the engines in use stay
            for engine, _ in opened.values():
                engine.close()
            with self._lock:
                for name in list(self._ready):
                    self._reject(name, _describe(error))
            return
        with self._lock:
            self._opened = opened

    def _reject(self, name: str, reason: str) -> None:
        self._rejected[name] = reason
        self._ready.pop(name, None)
        _log.warning("the engine of %s for %s is not used: %s", name, self._setup, reason)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, CostrouteError) else f"{type(error).__name__}: {error}"
