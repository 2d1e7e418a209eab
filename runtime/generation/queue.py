"""The queue of a device: it runs one unit of work at a time, that of the most urgent request.

A unit is what cannot be interrupted: loading engines, encoding a text, one denoiser call, decoding one image. Requests are ordered by
deadline, those without a budget come last, and equals in the order of their arrival. Between two of its units a request holds nothing,
so a consumer that pauses delays nobody.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum

from costroute_rt.cost.correction import Clock
from costroute_rt.error import BusyError

POLL_S = 0.02
"""How often a request looks whether an event of the caller cancelled it: that cannot wake it."""
WAKE_S = 1.0
"""How often it looks otherwise; some systems deliver no signals to a thread that waits without end."""
_AWAY_S = 0.05
"""Requests whose consumer has been away for longer are not expected to go on, and are not waited for."""
_numbers = itertools.count()


class State(Enum):
    """What a request in the queue does now."""

    WAITING = "waiting"
    """For its turn, or about to."""
    RUNNING = "running"
    AWAY = "away"
    """Its consumer has the last event and has not asked for the next one."""


_GRACE_S = {State.AWAY: 0.005, State.WAITING: 1.0}
"""How long the device is kept for a more urgent request that is about to take its turn: otherwise two requests would alternate, and both
would take twice as long. Only a consumer can fail to come back."""


@dataclass(eq=False, slots=True)
class Ticket:
    """The place of one request in the queue."""

    deadline_s: float = math.inf
    """A time of the queue's clock; infinite without a budget, and for a request that has lost its place."""
    remaining_ms: float = 0.0
    """Expected time of the work that is left."""
    reserve_ms: float = 0.0
    """Time beyond `remaining_ms` within which 95 of 100 requests are done."""
    is_judged: bool = True
    """Whether its times are those of an accepted request; False while they are the least that it may need, until its prompt is judged."""
    unit_ms: float = 0.0
    """Expected time of its next unit of work, at most `remaining_ms`."""
    state: State = State.WAITING
    since_s: float = 0.0
    """When it entered that state, or its times were recorded: of a unit that runs, they count from then on."""
    ready_s: float = -math.inf
    """When it became ready for its next unit of work, as a time of `time.monotonic`."""
    number: int = field(default_factory=lambda: next(_numbers))
    """Order of arrival."""

    @property
    def urgency(self) -> tuple[float, int]:
        """The smallest goes first."""
        return self.deadline_s, self.number


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the other requests mean for one request."""

    queue_ms: float = 0.0
    """Expected wait for more urgent requests, and for the unit of work that runs now."""
    slack_ms: float = math.inf
    """Time that the request may take without making a less urgent one miss its deadline."""
    queue_spread_ms: float = 0.0
    """Distance from the wait to its 95th percentile, as the requests ahead vary independently."""

    def after(self, spent_ms: float, done_ms: float = 0.0) -> Forecast:
        """The same for a request that has spent some time, which counts as waiting, but for `done_ms` of work that its cost contains."""
        return replace(self, queue_ms=self.queue_ms + max(spent_ms - done_ms, 0.0), slack_ms=self.slack_ms + done_ms)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request stands in the queue."""

    ahead: int
    """Requests that are expected to finish before it, or run a unit of work now."""
    wait_ms: float
    """Expected time until its first unit of work."""


class Device:
    """The queue of requests for one device.

    Safe to use from any thread, and from what interrupts one: signal handlers and finalizers. Therefore its lock may be taken again by
    the thread that has it, and its sets are copied before they are walked.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._tickets: set[Ticket] = set()
        self._waiting: dict[Ticket, threading.Condition] = {}
        self._running: Ticket | None = None
        self._thread: int | None = None
        """The thread that runs the unit."""
        self._idle = threading.Condition(self._lock)

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread runs a unit of work now."""
        return self._thread == threading.get_ident()

    def runs_here(self, tickets: Collection[Ticket]) -> bool:
        """Whether the calling thread runs a unit of one of these requests now."""
        return self.is_mine and self._running in tickets

    @property
    def waiting(self) -> int:
        """Number of requests that wait for their turn."""
        return len(self._waiting)

    def is_alone(self, ticket: Ticket) -> bool:
        """Whether no other request runs, waits, or is about to go on."""
        with self._lock:
            return self._running in (None, ticket) and all(each is ticket for each in self._active())

    def enter(self, ticket: Ticket, max_waiting: int | None) -> None:
        """Add a request. Raises BusyError if `max_waiting` requests wait already, besides the one that runs."""
        with self._lock:
            ahead = sum(1 for _ in self._active())
            if max_waiting is not None and ahead > max_waiting:
                expected_ms = sum(each.remaining_ms for each in self._active())
                raise BusyError(ahead - 1, max_waiting, expected_ms / ahead)
            self._tickets.add(ticket)
            self.note(ticket, State.WAITING)

    def leave(self, ticket: Ticket) -> None:
        """Remove a request, with all that an exception at an unlucky moment (Ctrl-C) left of it; does nothing if it was removed before."""
        with self._lock:
            self._tickets.discard(ticket)
            self._waiting.pop(ticket, None)
            self._give_up(ticket)

    def note(self, ticket: Ticket, state: State) -> None:
        """Record what a request does now."""
        with self._lock:
            ticket.state, ticket.since_s = state, self._clock()
            self._wake()

    def note_work(self, ticket: Ticket, remaining_ms: float, *, reserve_ms: float = 0.0, unit_ms: float = math.inf) -> None:
        """Record the expected time of the work that a request has left, from now on."""
        with self._lock:
            ticket.remaining_ms, ticket.reserve_ms, ticket.unit_ms = remaining_ms, reserve_ms, min(unit_ms, remaining_ms)
            ticket.since_s = self._clock()

    def come_back(self, ticket: Ticket) -> None:
        """Record that a consumer asks for the next event; one that was away too long yields to those that were accepted meanwhile."""
        with self._lock:
            was_away = ticket.state is State.AWAY and self._clock() - ticket.since_s > _AWAY_S
            self.note(ticket, State.WAITING)
            if was_away and self._forecast(ticket).slack_ms < ticket.remaining_ms:
                ticket.deadline_s = math.inf

    @contextmanager
    def reserving(self, ticket: Ticket) -> Iterator[None]:
        """Until the block ends, no other request can reserve time."""
        with self._lock:
            yield
            ticket.ready_s = time.monotonic()

    def forecast(self, ticket: Ticket, *, is_early: bool = False) -> Forecast:
        """What the requests in the queue mean for one that has, or would get, this ticket; what it was accepted with it may use.

        is_early: whether requests that are still judged count too. They may yet be refused: for what is accepted only accepted ones count.
        """
        found = self._forecast(ticket, is_early=is_early)
        return replace(found, slack_ms=max(found.slack_ms, ticket.remaining_ms + ticket.reserve_ms)) if ticket.is_judged else found

    def _forecast(self, ticket: Ticket, *, is_early: bool = False) -> Forecast:
        """The same for one that has reserved nothing."""
        with self._lock:
            counted = (each for each in self._active() if each is not ticket and (is_early or each.is_judged))
            others = sorted(counted, key=lambda each: each.urgency)
            if not others and self._running in (None, ticket):
                return Forecast()
            ahead = [each for each in others if each.urgency < ticket.urgency]
            queue_ms = sum(map(self._left_ms, ahead))
            if self._running is not None and self._running is not ticket and self._running not in ahead:
                queue_ms += self._left_ms(self._running, unit=True)
            spread_ms = math.hypot(*(each.reserve_ms for each in ahead))
            return Forecast(queue_ms, self._slack_ms(queue_ms, spread_ms, others[len(ahead) :]), spread_ms)

    def place(self, ticket: Ticket) -> Place:
        """Where a request that waits stands; requests that are just being judged count with no time yet."""
        with self._lock:
            ahead = sum(1 for each in self._active() if each is not ticket and (each.urgency < ticket.urgency or each is self._running))
            return Place(ahead, self.forecast(ticket).queue_ms)

    def _slack_ms(self, queue_ms: float, spread_ms: float, behind: Iterable[Ticket]) -> float:
        """The time that can be put before these requests, in their order, so that each still meets its deadline if it would now.

        queue_ms, spread_ms: what precedes them, the unit that runs now included, and its spread.
        """
        slack_ms, done_ms, now_s = math.inf, queue_ms, self._clock()
        for each in behind:
            done_ms += self._left_ms(each) - (self._left_ms(each, unit=True) if each is self._running else 0.0)
            spread_ms = math.hypot(spread_ms, each.reserve_ms)
            spare_ms = (each.deadline_s - now_s) * 1000 - done_ms
            if spare_ms >= 0:
                slack_ms = min(slack_ms, max(spare_ms - spread_ms, 0.0))
        return slack_ms

    def _left_ms(self, ticket: Ticket, *, unit: bool = False) -> float:
        """Expected time until a request, or only its current unit, is done."""
        spent_ms = (self._clock() - ticket.since_s) * 1000 if ticket is self._running else 0.0
        return max((ticket.unit_ms if unit else ticket.remaining_ms) - spent_ms, 0.0)

    def _active(self) -> Iterator[Ticket]:
        """Requests that run, wait, or whose consumer is about to ask for more."""
        now_s = self._clock()
        return (each for each in list(self._tickets) if each.state is not State.AWAY or now_s - each.since_s <= _AWAY_S)

    @contextmanager
    def turn(self, ticket: Ticket, check: Callable[[], object], *, polls: bool = False) -> Iterator[float]:
        """Wait until `ticket` is the most urgent one that waits, and keep the device until the block ends; yields the milliseconds waited.

        check: what it raises ends the waiting; called at the start, after `wake`, and all the time if `polls` is set.
        """
        waited_ms = self._acquire(ticket, check, POLL_S if polls else WAKE_S)
        try:
            yield waited_ms
        finally:
            self._release(ticket)

    def keep(self, ticket: Ticket) -> bool:
        """Keep the device for the next unit of the request that has it; False if there are others, which may be more urgent."""
        with self._lock:
            if len(self._tickets) > 1:
                return False
            ticket.since_s = self._clock()
            return True

    def _acquire(self, ticket: Ticket, check: Callable[[], object], poll_s: float) -> float:
        started_s = self._clock()
        with self._lock:
            if self._running is None and not self._waiting and len(self._tickets) == 1:  # nobody to wait for
                check()
                self._take(ticket)
                return (self._clock() - started_s) * 1000
            ready = self._waiting[ticket] = threading.Condition(self._lock)
            self.note(ticket, State.WAITING)
            try:
                while True:
                    check()
                    wait_s = poll_s
                    if self._running is None and self._first() is ticket:
                        wait_s = self._grace_s(ticket)
                        if wait_s <= 0:
                            self._take(ticket)
                            return (self._clock() - started_s) * 1000
                    ready.wait(min(wait_s, poll_s))
            finally:
                self._waiting.pop(ticket, None)
                self._wake()  # if this one gave up, it may have been woken instead of the next

    def _take(self, ticket: Ticket) -> None:
        self._running, self._thread = ticket, threading.get_ident()
        self.note(ticket, State.RUNNING)

    def _grace_s(self, ticket: Ticket) -> float:
        """How long the device is still kept for a more urgent request."""
        until = [each.ready_s + _GRACE_S[each.state] for each in list(self._tickets) if each.urgency < ticket.urgency]
        return max(until, default=-math.inf) - time.monotonic()

    def _release(self, ticket: Ticket) -> None:
        with self._lock:
            self.note(ticket, State.WAITING)
            ticket.ready_s = time.monotonic()
            self._give_up(ticket)

    def _give_up(self, ticket: Ticket) -> None:
        """Free the device, if this request has it."""
        if self._running is ticket:
            self._running = self._thread = None
            self._idle.notify_all()
        self._wake()

    def _first(self) -> Ticket:
        return min(list(self._waiting), key=lambda each: each.urgency)

    def _wake(self) -> None:
        if self._waiting and self._running is None:
            self._waiting[self._first()].notify()

    def wake(self, tickets: Iterable[Ticket]) -> None:
        """Let these requests, if they wait, call their `check` now."""
        with self._lock:
            for ticket in tickets:
                if ticket in self._waiting:
                    self._waiting[ticket].notify_all()

    def wait_for(self, tickets: Iterable[Ticket]) -> None:
        """Wait until none of these requests runs a unit of work; returns at once in a thread that runs one itself."""
        with self._lock:
            wanted = set(tickets)
            while self._running in wanted and not self.is_mine:
                self._idle.wait(WAKE_S)


_shared: dict[tuple[int, str], Device] = {}
"""By process number too, and without a lock, which a fork could leave held for ever."""


def shared_device(name: str) -> Device:
    """The one queue that all runtimes of this process have for the device of that name."""
    return _shared.setdefault((os.getpid(), name), Device(time.perf_counter))
