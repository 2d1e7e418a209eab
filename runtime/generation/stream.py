"""Streams: a request as an iterator of its events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from costroute_rt.error import BudgetError, CancelledError, CostrouteError, EngineError
from costroute_rt.generation.generation import Generation
from costroute_rt.generation.least_cost import LeastCosts
from costroute_rt.generation.process_exit import stop_if_exiting
from costroute_rt.generation.queue import Device, Place, State, Ticket
from costroute_rt.result import OnStep, Result, StepEvent
from costroute_rt.route import Route

if TYPE_CHECKING:
    from types import TracebackType

    from costroute_rt.family.resources import Resources
    from costroute_rt.request import Request


class Stream:
    """A StepEvent after each denoiser call of a request, and finally the Result.

    Any thread may ask for the next event; the work is done meanwhile. Between two events the stream holds nothing: other requests go on.
    Closing or dropping it cancels the request.
    """

    def __init__(
        self,
        resources: Resources,
        device: Device,
        request: Request,
        *,
        seed: int,
        cancel: threading.Event | None,
        max_waiting: int | None,
        check: Callable[[], None],
        check_running: Callable[[], None],
        on_end: Callable[[Ticket], None],
        spent_ms: float = 0.0,
    ) -> None:
        """check: raises StateError if the runtime cannot be used any more, or not in this thread now; check_running: only the former.

        on_end: called when the request has ended. spent_ms: of the budget, before.
        """
        self._resources, self._device, self._max_waiting = resources, device, max_waiting
        self._cancel, self._check_runtime, self._check_running, self._on_end = cancel, check, check_running, on_end
        self._advancing = threading.Lock()
        self._is_closed = self._is_queued = self._has_begun = False
        self._noted_route: Route | None = None
        self._units: Iterator[StepEvent | Result | None] | None = None
        self._generation = Generation(resources, request, device, seed=seed, spent_ms=spent_ms)
        self.ticket = self._generation.ticket
        self._generation.watch.pause()  # until the first event is asked for
        self._is_over = False
        self._on_route: Callable[[Route], object] | None = None

    @property
    def route(self) -> Route | None:
        """The decision as it stands; None until the request is accepted."""
        return self._generation.route

    @property
    def place(self) -> Place | None:
        """Where the request stands in the queue; None once its work has begun, and after its end."""
        return None if self._has_begun or self._is_over else self._device.place(self.ticket)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> StepEvent | Result:
        """The next event. Raises BudgetError, PromptError, CancelledError, EngineError, BusyError; StateError if the runtime is closed."""
        with self._advancing:
            if self._is_over:
                raise StopIteration
            event = self._next()
            if isinstance(event, StepEvent):
                self._pause()
        if self._is_closed:  # meanwhile
            self.close()
        return event

    def run(self, on_step: OnStep | None, *, on_route: Callable[[Route], object] | None = None, pauses: bool = True) -> Result:
        """Make every step and return the result; on_step: called after each denoiser call, cancels the request by returning False.

        on_route: called with the route when the request is accepted, and again when another candidate takes its place after a wait.
        pauses: whether `on_step` may take its time, during which other requests go on. Raises as `next` does.
        """
        self._generation.reports_steps = on_step is not None
        with self._advancing:
            self._on_route = on_route
            try:
                while isinstance(event := self._next(), StepEvent):
                    if on_step is not None:
                        if pauses:
                            self._pause()
                        if on_step(event) is False:
                            raise CancelledError
                return event
            except BaseException:
                self._end()
                raise

    def _next(self) -> StepEvent | Result:
        """The next event; at the end, and after an error, the request leaves the queue."""
        try:
            event = self._advance()
            if isinstance(event, StepEvent):
                self._check()
        except BaseException as error:
            self._end()
            stop_if_exiting()
            if isinstance(error, EngineError):
                raise self._resources.located(error) from error.__cause__
            raise
        if isinstance(event, Result):
            self._end()
        return event

    def _pause(self) -> None:
        """The consumer's time begins; it ends when the next event is asked for."""
        self._device.note(self.ticket, State.AWAY)
        self._generation.watch.pause()

    def _advance(self) -> StepEvent | Result:
        self._check()
        generation = self._generation
        generation.watch.resume()
        self._device.come_back(self.ticket)
        if self._units is None:
            self.enter_queue()
            self._prepare()
            self._note_route()
            self._units = generation.units()
        while True:
            with self._device.turn(self.ticket, self._check, polls=self._cancel is not None) as waited_ms:
                self._has_begun = True
                generation.note_wait(waited_ms)
                event = next(self._units)
                while event is None and not self._route_is_new() and self._device.keep(self.ticket):
                    self._check_running()
                    self._check_cancelled()
                    event = next(self._units)
            self._note_route()
            if event is not None:
                return event

    def _route_is_new(self) -> bool:
        """Whether the route is to be reported, and was not."""
        route, before = self._generation.route, self._noted_route
        return self._on_route is not None and route is not None and (before is None or before.chosen != route.chosen)

    def _note_route(self) -> None:
        """Report the route, if it is not the one that was reported."""
        route = self._generation.route
        if self._on_route is not None and route is not None and self._route_is_new():
            self._noted_route = route
            self._on_route(route)

    def _prepare(self) -> None:
        try:
            if self._resources.takes_turns:
                with self._device.turn(self.ticket, self._check, polls=self._cancel is not None) as waited_ms:
                    self._generation.note_wait(waited_ms)
                    self._generation.prepare()
            else:
                self._generation.prepare()
        except BudgetError:
            if self._device.is_alone(self.ticket):  # otherwise the requests that run show how busy the machine is
                with self._device.turn(self.ticket, self._check):
                    self._generation.probe()
            raise

    def enter_queue(self) -> None:
        """Take a place in the queue, if the stream has none yet; the first event does it too. Raises BusyError if the queue is full."""
        if not self._is_queued:
            self._device.enter(self.ticket, self._max_waiting)
            self._is_queued = True

    def expect(self, least: LeastCosts, *, refuse_early: bool) -> None:
        """Reserve the least time that the request may need, if possible.

        refuse_early: whether to raise BudgetError if that does not fit behind the other requests. One that is alone is accepted: it
        finds out by itself whether the engines are still as slow as they were.
        """
        try:
            self._generation.expect(least, is_checked=refuse_early and not self._device.is_alone(self.ticket))
        except BudgetError:
            self._end()
            raise
        except CostrouteError:  # it is raised again when the prompt is read
            return

    def _check(self) -> None:
        self._check_runtime()
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._is_closed or (self._cancel is not None and self._cancel.is_set()):
            raise CancelledError

    def _end(self) -> None:
        """May be called again: an exception that interrupts it (Ctrl-C) leaves the rest to the next call."""
        self._units = None
        self._device.leave(self.ticket)
        self._generation.release()
        self._on_end(self.ticket)
        self._is_over = True

    def close(self) -> None:
        """Cancel the request; a unit of work that runs in another thread is finished first, and that thread gets CancelledError.

        Does nothing if the request has ended.
        """
        self._is_closed = True
        if self._advancing.acquire(blocking=False):
            try:
                if not self._is_over:
                    self._end()
            finally:
                self._advancing.release()
        else:
            self._device.wake([self.ticket])

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):
            self.close()
