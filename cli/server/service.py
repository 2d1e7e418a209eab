"""The service: one runtime, opened beside the first requests, and the works that it is given."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from costroute_rt.cli.server.board import Board
from costroute_rt.cli.server.metric import Metrics
from costroute_rt.cli.server.order import Order
from costroute_rt.cli.server.picture import Picture
from costroute_rt.cli.server.problem import FAILED, REFUSED, Problem, shutting_down
from costroute_rt.cli.server.settings import ServerSettings
from costroute_rt.cli.server.work import Work
from costroute_rt.error import BusyError, CancelledError, ConfigError, CostrouteError, EngineError, Reason

if TYPE_CHECKING:
    from costroute_rt.engines.building.progress import OnOpen, OpenEvent
    from costroute_rt.generation.job import Job
    from costroute_rt.result import Result
    from costroute_rt.route import Route
    from costroute_rt.runtime import Runtime

_log = logging.getLogger(__name__)
OpenRuntime = Callable[["OnOpen", threading.Event], "Runtime"]
"""Opens the runtime, in a thread; called with a function for its progress and an event that cancels it."""
T = TypeVar("T")
_SIZE_FIELDS = ("height x width", "height", "width")
_ROUTING_THREADS, _FILE_THREADS = 4, 2
_TICK_S = 1.0
_DECIDED_S = 2.0
"""How long a new job may take to be accepted or refused before it is answered all the same."""


class Phase(str, Enum):
    """What the service does."""

    OPENING = "opening"
    READY = "ready"
    DRAINING = "draining"
    """It ends what it accepted, and accepts nothing."""
    FAILED = "failed"


class Service:
    """Takes orders, and follows them until their end. All methods are for the thread of the event loop."""

    def __init__(self, open_runtime: OpenRuntime, settings: ServerSettings, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._open_runtime, self.settings, self.clock = open_runtime, settings, clock
        self.board = Board(clock, settings.limits)
        self.metrics = Metrics()
        self.opening: OpenEvent | None = None
        """How far the opening of the runtime is."""
        self._phase = Phase.OPENING
        self._cancel_opening = threading.Event()
        self._routing = ThreadPoolExecutor(_ROUTING_THREADS, thread_name_prefix="costroute-rt route")
        self._files = ThreadPoolExecutor(_FILE_THREADS, thread_name_prefix="costroute-rt file")
        self._worked_s = clock()
        """When an image was made or asked for last."""
        self._is_unloaded = False
        self.started = asyncio.Event()
        self._beside = set[asyncio.Task[None]]()

    async def start(self) -> None:
        """Begin to open the runtime; returns at once."""
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Runtime] = self._loop.create_future()
        threading.Thread(target=self._open, name="costroute-rt opening", daemon=True).start()
        self._ticking = self._loop.create_task(self._tick())
        self.started.set()

    def _open(self) -> None:
        try:
            runtime = self._open_runtime(self._note_opening, self._cancel_opening)
        except BaseException as error:
            self._call_soon(self._set_opened, None, error)
        else:
            self._call_soon(self._set_opened, runtime, None)

    def _note_opening(self, event: OpenEvent) -> None:
        self.opening = event

    def _set_opened(self, runtime: Runtime | None, error: BaseException | None) -> None:
        if runtime is not None:
            self._opened.set_result(runtime)
            self._phase = Phase.READY if self._phase is Phase.OPENING else self._phase
            self._worked_s = self.clock()
            return
        self._phase = Phase.FAILED if self._phase is Phase.OPENING else self._phase
        self._opened.set_exception(error or CancelledError())
        self._opened.exception()  # it is reported by `opened`

    @property
    def phase(self) -> Phase:
        return self._phase

    def describe_opening(self) -> dict[str, Any] | None:
        """How far the opening of the runtime is, as plain data; None if it has not begun or is over."""
        event = self.opening
        if self._phase is not Phase.OPENING or event is None:
            return None
        names = ("stage", "done", "total", "remaining_s")
        return {**{name: getattr(event, name) for name in names}, "fraction": round(event.fraction, 4)}

    async def opened(self, timeout_s: float | None = None) -> Runtime:
        """The runtime, when it is open. Raises TimeoutError, and what opening it raised."""
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(self._opened)

    @property
    def runtime(self) -> Runtime | None:
        """The runtime, if it is open."""
        is_open = self._opened.done() and self._opened.exception() is None
        return self._opened.result() if is_open else None

    @property
    def failure(self) -> BaseException | None:
        """What opening the runtime raised, unless it was cancelled because the server was told to end."""
        error = self._opened.exception() if self.started.is_set() and self._opened.done() else None
        return None if isinstance(error, CancelledError) else error

    async def in_thread(self, call: Callable[[], T]) -> T:
        """The result of work on files, in a thread of its own: reading and writing images."""
        return await self._loop.run_in_executor(self._files, call)

    async def route(self, order: Order, latest: str | None) -> Route:
        """The decision for an order now; raises what the runtime raises, and CancelledError if a later call had the same `latest`."""
        runtime = await self._runtime_for(order)
        cancel = threading.Event()
        ask = partial(runtime.route, order.request, cancel=cancel, latest=latest, spent_ms=order.spent_ms(self.clock()))
        try:
            return await self._loop.run_in_executor(self._routing, ask)
        except (ConfigError, EngineError) as error:
            return await self.route(_without_hint(order, error), latest)
        finally:
            cancel.set()

    async def submit(self, order: Order) -> Work:
        """Take an order; the work tells when it is accepted or refused. Raises Problem if it cannot be taken at all."""
        if self._phase is Phase.DRAINING:
            raise shutting_down()
        active, limits = self.board.active(), self.settings.limits
        if order.source_bytes + sum(work.order.source_bytes for work in active) > limits.source_bytes:
            raise Problem(429, "images_too_large", "the images of requests that wait fill the memory", type=REFUSED, retry_after_ms=1000)
        work = Work(order, self.clock)
        if self.runtime is None and len(active) > limits.waiting:
            raise BusyError(len(active), limits.waiting, 1000.0)
        self.board.add(work)
        try:
            runtime = await self._runtime_for(order)
            self._worked_s, self._is_unloaded = self.clock(), False
            self._start_job(work, runtime, order)
        except BaseException as error:
            self.board.discard(work)
            if isinstance(error, CostrouteError | Problem):
                raise self._counted(work, error) from None
            raise
        work.note_queued()
        return work

    async def check_accepted(self, work: Work) -> None:
        """Raises the problem of a work that is refused, and forgets it; returns soon if that is not decided yet."""
        await work.decided(_DECIDED_S)
        if work.problem is not None and work.route is None:
            self.board.discard(work)
            raise work.problem

    async def begin(self, order: Order) -> Work:
        """A work for a client that waits: it was accepted. Raises Problem if it is refused; whoever calls this calls `leave` at the end."""
        work = await self.submit(order)
        try:
            while work.route is None and not work.state.is_over:
                await work.bell.wait()
            if work.problem is not None and work.route is None:
                raise work.problem
        except BaseException:
            self.leave(work)
            raise
        return work

    async def make(self, order: Order) -> Work:
        """A work that is done. Raises Problem if it ends otherwise; cancelling this cancels the work."""
        work = await self.see_through(order)
        if work.problem is not None:
            raise work.problem
        return work

    async def see_through(self, order: Order) -> Work:
        """A work that has ended, one way or another; cancelling this cancels the work."""
        work = await self.submit(order)
        try:
            await work.ended()
        finally:
            self.leave(work)
        return work

    def leave(self, work: Work) -> None:
        """Nobody waits for a work any more: it ends, and is forgotten."""
        work.is_left = True
        if not work.cancel():
            self.board.discard(work)

    def _counted(self, work: Work, error: BaseException) -> Problem:
        work.fail(error)
        problem = work.problem
        assert problem is not None
        self.metrics.count_work(problem.code)
        return problem

    def _start_job(self, work: Work, runtime: Runtime, order: Order) -> None:
        """Give it to the runtime, without hints that it does not take."""
        try:
            job = runtime.submit(
                order.request,
                on_step=partial(self._call_soon, work.note_step),
                on_route=partial(self._call_soon, work.note_route),
                spent_ms=order.spent_ms(self.clock()),
                refuse_early=True,
            )
        except (ConfigError, EngineError) as error:
            work.order = _without_hint(order, error)
            self._start_job(work, runtime, work.order)
            return
        work.took(job)
        job.add_done_callback(partial(self._note_end, work))

    async def _runtime_for(self, order: Order) -> Runtime:
        """The runtime, within what is left of the order's budget."""
        left_ms = order.left_ms(self.clock())
        if self.runtime is not None and (left_ms is None or left_ms > 0):
            return self.runtime
        try:
            runtime = await self.opened(None if left_ms is None else max(0.0, left_ms / 1000))
        except TimeoutError:
            runtime = None
        except CancelledError as error:
            raise shutting_down() from error
        left_ms = order.left_ms(self.clock())
        if runtime is None or (left_ms is not None and left_ms <= 0):
            raise self._not_in_time(order, is_open=self.runtime is not None)
        return runtime

    def _not_in_time(self, order: Order, *, is_open: bool) -> Problem:
        if is_open:
            message = f"max_ms of {order.request.max_ms:g} was over before the request had arrived: it counts from its first byte"
            return Problem(422, "max_ms_too_small", message, param="max_ms", details={"max_ms": order.request.max_ms})
        left_s = None if self.opening is None else self.opening.remaining_s
        message = "the server still loads or builds its engines"
        return Problem(503, "not_ready", message, type=FAILED, retry_after_ms=1000 * (left_s or 1.0)).once()

    def _note_end(self, work: Work, job: Job) -> None:
        """Called in the job's thread."""
        ended_s, error = self.clock(), job.exception()
        if error is None:
            try:
                result = job.result()
                pictures = make_pictures(result, work.order)
                paths, note = self._save(pictures)
                self._call_soon(self._finish, work, result, pictures, ended_s, paths, note)
                return
            except Exception as failure:
                error = failure
        self._call_soon(self._fail, work, error)

    def _finish(
        self, work: Work, result: Result, pictures: tuple[Picture, ...], ended_s: float, paths: tuple[Path, ...], note: str | None
    ) -> None:
        work.paths = paths
        if note is not None:
            work.order = work.order.with_note(note)
        work.finish(result, pictures, ended_s)
        self.metrics.count_work("done")
        self.metrics.count_images(len(pictures), work.elapsed_ms / 1000, work.met())
        self._end(work)

    def _fail(self, work: Work, error: BaseException) -> None:
        work.fail(error)
        if work.problem is not None:
            self.metrics.count_work(work.problem.code)
        self._end(work)

    def _end(self, work: Work) -> None:
        self._worked_s = self.clock()
        if work.order.is_kept:
            self.board.keep(work)
        work.tell_end()
        if work.is_left:
            self.board.discard(work)

    def _save(self, pictures: tuple[Picture, ...]) -> tuple[tuple[Path, ...], str | None]:
        """Write copies, if the user wants them; their paths, or a note why there are none. Their names come from the server alone."""
        folder = self.settings.save_to
        try:
            return () if folder is None else tuple(save_picture(folder, picture) for picture in pictures), None
        except OSError as error:
            _log.warning("cannot write a copy of an image: %s", error)
            return (), f"no copy was written: {error.strerror or error}"

    def run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until its end, or that of the service."""
        task = self._loop.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call it in the thread of the event loop; does nothing if that has ended."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.board.expire()
            await self._unload_if_idle()

    async def _unload_if_idle(self) -> None:
        """Close the engines if nobody has wanted an image for long; looking at the page or at metrics is not wanting one."""
        after_s, runtime = self.settings.unload_after_s, self.runtime
        if after_s is None or runtime is None or self._is_unloaded or self.board.active():
            return
        if self.clock() - self._worked_s >= after_s:
            self._is_unloaded = True
            await self._loop.run_in_executor(self._routing, runtime.unload)

    def drain(self) -> None:
        """Take no more orders."""
        self._phase = Phase.DRAINING
        self._cancel_opening.set()

    async def drained(self, timeout_s: float) -> None:
        """Returns when all accepted works have ended; after that time, those that are left are cancelled."""
        until_s = self._loop.time() + timeout_s
        while self.board.active() and self._loop.time() < until_s:
            await asyncio.sleep(0.05)
        for work in self.board.active():
            work.cancel()

    async def close(self) -> None:
        """End everything and release the runtime."""
        self.drain()
        await self.drained(0)
        for task in (self._ticking, *self._beside):
            task.cancel()
        if self.runtime is not None:
            await self._loop.run_in_executor(None, self.runtime.close)
        self._routing.shutdown(wait=False, cancel_futures=True)
        self._files.shutdown(wait=False, cancel_futures=True)


def make_pictures(result: Result, order: Order) -> tuple[Picture, ...]:
    """The images as files, in the format that the order asks for."""
    _, height, width, _ = result.pixels.shape
    return tuple(
        Picture(
            data=result.image_bytes(order.format, index, quality=order.quality),
            format=order.format,
            width=width,
            height=height,
            settings=result.image_settings(index),
        )
        for index in range(len(result.pixels))
    )


def save_picture(folder: Path, picture: Picture) -> Path:
    """Write a picture under a new name of time and seed."""
    import secrets

    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = folder / f"{stamp}-{picture.settings.get('seed')}-{secrets.token_hex(3)}.{picture.format}"
    with path.open("xb") as file:
        file.write(picture.data)
    return path


def _without_hint(order: Order, error: ConfigError | EngineError) -> Order:
    """The order without the hint that the error is about; raises the error if it is about something else."""
    name = error.name if isinstance(error, ConfigError) else ""
    hint = "size" if error.reason is Reason.SIZE_MISSING or name in _SIZE_FIELDS else name
    if hint not in order.hints:
        raise error
    return order.without(hint)
