"""The runtime an application embeds."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costroute_rt.backend_choice import BackendChoice
from costroute_rt.candidate import Candidate
from costroute_rt.error import CancelledError, ConfigError, EngineError, Reason, StateError, make_closed_error
from costroute_rt.family.engine_set import Phase
from costroute_rt.family.resources import Resources
from costroute_rt.family.upgrade import Building
from costroute_rt.generation.job import Job
from costroute_rt.generation.least_cost import LeastCosts
from costroute_rt.generation.planner import check_batch, plan_calls, route_arrival, route_batch
from costroute_rt.generation.process_exit import close_at_exit, stop_if_exiting
from costroute_rt.generation.queue import Device, Ticket, shared_device
from costroute_rt.generation.stream import Stream
from costroute_rt.judgement import Judgement
from costroute_rt.request import (
    Request,
    RequestOptions,
    check_callback,
    check_event,
    check_flag,
    check_list,
    check_name,
    check_number,
    check_spent,
    check_whole,
    make_request,
)
from costroute_rt.result import OnStep, Result, StepEvent
from costroute_rt.route import Route
from costroute_rt.source_image import SourceImage

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from costroute_rt.engines.building.progress import OnOpen, Tracker
    from costroute_rt.request import ImageLike


class Runtime:
    """Text to image within a latency budget, on one device.

    `Runtime.open` creates one, and `with` closes it. Safe to use from several threads and from asyncio: the device runs one unit of work
    at a time (a denoiser call, a decode ...), that of the request whose deadline is first, so requests wait for one another, and their
    budgets include that wait. Not usable in another process than the one that opened it.
    """

    def __init__(self, resources: Resources, *, device: Device | None = None, max_waiting: int | None = None) -> None:
        """device: the queue for the device; None means one of its own."""
        self._resources, self._max_waiting = resources, max_waiting
        self._least = LeastCosts(resources)
        self._device = device or Device(resources.clock)
        self._tickets: set[Ticket] = set()
        """Of all requests that have not ended."""
        self._latest: dict[str, object] = {}
        self._latest_lock = threading.Lock()
        self._calling = threading.local()
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._is_closed = self._is_released = False
        self._closing_thread: int | None = None
        """The thread that called `close` in the middle of its work, and has yet to release the engines."""
        close_at_exit(self)

    @classmethod
    def open(
        cls,
        bundle: str | Path | None = None,
        *,
        pool: str | Path | None = None,
        candidates: Sequence[str] = (),
        exclude: Sequence[str] = (),
        licenses: Sequence[str] = (),
        max_memory_bytes: int | None = None,
        home: str | Path | None = None,
        extra_stores: Sequence[str | Path] = (),
        backend: str = "auto",
        provider: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        allow_fallback: bool = False,
        build: bool = False,
        background_build: bool = False,
        preload: bool = True,
        init_images: bool = False,
        max_waiting: int | None = None,
        progress: OnOpen | None = None,
        cancel: threading.Event | None = None,
    ) -> Runtime:
        """Open the bundle directory `bundle`; None means the `postcard` family that ships with the package.

        pool: directory of a pool of several bundles (`costroute-rt pool` makes one), instead of `bundle`.
        candidates, exclude, licenses: names of the only candidates to use, names of those not to use, and the only licences to use.
        max_memory_bytes: limit of this process's memory, for engines on the processor, without `background_build`. Engines are closed and
            loaded as requests need them, which is part of the predicted times; candidates that cannot fit at all are `Route.unfit`.
            Images larger than usual are decoded in tiles (without a limit only those of more than twice the usual area).
        home: the store's directory; None means $COSTROUTE_HOME, else the user's cache directory, else a temporary one of this user.
        extra_stores: directories of stores to read beside it, such as one that ships with an application, before those in
            $COSTROUTE_EXTRA_STORES; nothing is written to them.
        backend: the library that runs the engines; auto: the one that was found to be fastest here (`build_fastest`, or `costroute-rt
            build-engines`), else ONNX Runtime, or what $COSTROUTE_BACKEND names. `choice` has the reason.
        provider: the backend's execution provider; auto means the backend's default.
        precision: float32, bfloat16 or float16, if the backend supports it; auto means float16 with TensorRT, else float32, or what was
            fastest with the backend auto.
        threads: CPU threads of each engine run; None means one for each physical core that this process may use. Engines are the same
            for any number.
        allow_fallback: if engines of `backend` and `provider` cannot run on this machine, run ONNX Runtime on the CPU; a warning, and
            `fallback` of every result, give the reason.
        build: build and profile missing engines.
        background_build: if engines of `backend`, `provider` and `precision` are missing, start with other engines that are ready, else
            with ONNX Runtime on the CPU, and build the missing ones in another process at low priority. The new engines replace the old
            ones between two requests, all at once, if each is correct and no slower than the one it replaces, and whole images are no
            slower with them. `building` reports the state; closing the runtime ends the build. Excludes `build`.
        preload: load every engine now and run it once; otherwise the first request that needs an engine loads it, within its budget.
        init_images: also build (with `build`) and load the engines that encode initial images; without it they are used if they exist.
        max_waiting: requests that may wait while another one runs; more raise BusyError. None means any number. Those of all runtimes of
            the device count.
        progress: called with an OpenEvent when work on an engine begins, several times a second while it lasts, and when all is done;
            returning False cancels.
        cancel: an event to set from another thread; opening ends as soon as the library that is building or loading can be stopped.
        Engines that are complete when opening is cancelled or fails are kept for the next time; everything else is released. Costs that
        were measured with other threads, processor limits or power mode are used, with a warning (`assumes`).
        Raises BundleError, EngineError (engines missing, stale, not measured), BackendError, ConfigError, CancelledError.
        """
        from costroute_rt.engines.building.progress import Tracker
        from costroute_rt.family.assembly import open_pool, open_resources

        if max_waiting is not None and check_whole("max_waiting", max_waiting) < 0:
            raise ConfigError("max_waiting", max_waiting, "0 or more")
        tracker = Tracker(progress, cancel)
        resources = open_resources(
            open_pool(bundle, pool, candidates=candidates, exclude=exclude, licenses=licenses),
            time.perf_counter,
            home=home,
            extra_stores=extra_stores,
            backend=backend,
            provider=provider,
            precision=precision,
            threads=threads,
            allow_fallback=allow_fallback,
            build=build,
            background_build=background_build,
            preload=preload,
            init_images=init_images,
            max_memory_bytes=max_memory_bytes,
            tracker=tracker,
        )
        runtime = cls(resources, device=shared_device(resources.setup["provider"]), max_waiting=max_waiting)
        try:
            if preload:
                runtime._warm_up(tracker)
            tracker.finish()
        except BaseException:
            runtime.close()
            raise
        return runtime

    @staticmethod
    def build_fastest(
        bundle: str | Path | None = None,
        *,
        pool: str | Path | None = None,
        home: str | Path | None = None,
        extra_stores: Sequence[str | Path] = (),
        precision: str = "auto",
        threads: int | None = None,
        progress: OnOpen | None = None,
        cancel: threading.Event | None = None,
    ) -> BackendChoice:
        """Build the engines of every backend that `backend="auto"` chooses between, compare whole images by them, and keep the result.

        Later calls of `open` use what was fastest. Where nothing is to be compared, what `open` would use is built. Takes as long as a
        build of each; a result that is still valid is not measured again.
        The arguments are those of `open`; progress gets the events of one set of engines after the other, and then of the comparison.
        Raises as `open` does.
        """
        from costroute_rt.engines.building.progress import Tracker
        from costroute_rt.engines.store.store import Store
        from costroute_rt.family.assembly import open_pool
        from costroute_rt.generation.fastest import build_fastest

        opened, store = open_pool(bundle, pool), Store.open(home, extra_stores)

        @contextmanager
        def follow(what: str) -> Iterator[Tracker]:
            tracker = Tracker(progress, cancel)
            yield tracker
            tracker.finish()

        chosen = build_fastest(opened, store, precision=precision, threads=threads, follow=follow).chosen
        assert chosen.choice is not None
        return chosen.choice

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates of the pool, in the pool's order."""
        return self._resources.pool

    @property
    def family(self) -> str:
        """Name of the (first) family; empty if no candidate has a bundle."""
        return self._resources.main_family.name if self._resources.families else ""

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the images that the (first) family makes, the default first; a family for any size makes others too."""
        if not self._resources.families:
            return ()
        family = self._resources.main_family
        first, image = family.sizes.first(family.bundle), family.bundle.image
        made = sorted(image.sizes) if family.sizes.has_usual else sorted(family.sizes.sizes)
        return tuple(dict.fromkeys([first, *made]))

    @property
    def fallback(self) -> str | None:
        """Reason why ONNX Runtime on the CPU is used instead of what was asked for, with the fix; None if there was no fallback."""
        return self._resources.fallback

    @property
    def choice(self) -> BackendChoice | None:
        """Which backend `auto` has chosen, and why; None if the backend was named."""
        return self._resources.choice

    @property
    def setup(self) -> dict[str, str]:
        """Backend, provider and precision of the engines; with a background build, of those it began with."""
        return {name: self._resources.setup[name] for name in ("backend", "provider", "precision")}

    @property
    def assumes(self) -> str | None:
        """What predictions assume, because costs were measured with other threads, processor limits or power mode; None if nothing."""
        return self._resources.assumes

    @property
    def store(self) -> Path:
        """Directory of the engines."""
        return self._resources.store

    @property
    def building(self) -> Building | None:
        """State of the background build; None if nothing had to be built (`background_build` of `open`)."""
        return None if self._resources.upgrade is None else self._resources.upgrade.status()

    def route(
        self,
        prompt: str | Request,
        *,
        cancel: threading.Event | None = None,
        latest: str | None = None,
        spent_ms: float = 0.0,
        **options: Unpack[RequestOptions],
    ) -> Route:
        """The decision that `generate` would make for these arguments now, and why, without generating.

        It does not wait for images that are being made. The predicted times include the wait for them.
        cancel: an event to set from another thread, which ends the waiting for other calls of `route`.
        latest: a name shared by calls of which only the latest is wanted, such as those after each key that is pressed in a text field:
            earlier ones that still wait end with CancelledError.
        spent_ms: milliseconds of the budget that passed before this call.
        Raises as `generate` does.
        """
        check_event("cancel", cancel)
        request = self._check(make_request(prompt, **options))
        self._check_call()
        resources, clock = self._resources, self._resources.clock
        spent_ms = check_spent(spent_ms)
        with self._only_latest(latest) as is_latest:

            def check() -> None:
                self._check_usable()
                if (cancel is not None and cancel.is_set()) or not is_latest():
                    raise CancelledError

            resources.swap_in()
            judgement = self._judge(request, check)
        ticket = Ticket() if request.max_ms is None else Ticket(clock() + (request.max_ms - spent_ms) / 1000)
        with locating_errors(resources):
            plans = plan_calls(resources, request)
            return route_arrival(resources, request, plans, judgement, ticket, lambda: self._device.forecast(ticket).after(spent_ms))

    @contextmanager
    def _only_latest(self, name: str | None) -> Iterator[Callable[[], bool]]:
        """Yields a function that returns whether no later call has begun with the same name."""
        turn = object()
        if name is None:
            yield lambda: True
            return
        with self._latest_lock:
            self._latest[check_name("latest", name)] = turn
        try:
            yield lambda: self._latest.get(name) is turn
        finally:
            with self._latest_lock:
                if self._latest.get(name) is turn:
                    del self._latest[name]

    def plan(
        self,
        prompts: Iterable[str | Route],
        *,
        total_ms: float | None = None,
        mean_ms: float | None = None,
        or_fastest: bool = False,
        count: int = 1,
        negative_prompt: str | None = None,
        height: int | None = None,
        width: int | None = None,
        plain_prompt: bool = False,
        scheduler: str | None = None,
        init_image: ImageLike | None = None,
        strength: float | None = None,
        mask: ImageLike | None = None,
    ) -> list[Route]:
        """Divide one time budget over many prompts; returns the route of each, chosen for the highest total quality.

        Nothing is generated: give each prompt to `generate` with `candidate=route.chosen.name`. To adapt to the actual times, plan again
        with the remaining routes and the remaining time; the prompt of a route is not judged a second time.
        total_ms: budget for all prompts together. mean_ms: budget per prompt. Exactly one of them must be given.
        or_fastest: if not even the fastest candidates fit, plan these instead of raising BudgetError, which is raised before any prompt is
            judged.
        The other arguments are fields of `Request`.
        """
        prompts, or_fastest = check_list("prompts", prompts), check_flag("or_fastest", or_fastest)
        if (total_ms is None) == (mean_ms is None):
            raise ConfigError("total_ms and mean_ms", (total_ms, mean_ms), "one of them")
        for name, value in (("total_ms", total_ms), ("mean_ms", mean_ms)):
            if value is not None and check_number(name, value, "a number of milliseconds above 0") <= 0:
                raise ConfigError(name, value, "a number of milliseconds above 0")
        if not prompts:
            return []
        each_ms = total_ms / len(prompts) if total_ms is not None else mean_ms
        shared = RequestOptions(
            max_ms=each_ms, count=count, negative_prompt=negative_prompt, height=height, width=width, plain_prompt=plain_prompt,
            scheduler=scheduler, init_image=None if init_image is None else SourceImage.of("init_image", init_image),
            strength=strength, mask=None if mask is None else SourceImage.of("mask", mask),
        )  # fmt: skip
        requests = [self._check(make_request(each.prompt if isinstance(each, Route) else each, **shared)) for each in prompts]
        budget_ms = len(prompts) * float(requests[0].max_ms or 0.0) if total_ms is None else float(total_ms)
        self._check_call()
        plans, prefers_guided = plan_calls(self._resources, requests[0]), requests[0].has_negative_prompt
        if not or_fastest:
            check_batch(self._resources, plans, len(requests), budget_ms)
        judged = [
            (request.prompt, each.judgement if isinstance(each, Route) and each.judgement is not None else self._judge(request))
            for each, request in zip(prompts, requests, strict=True)
        ]
        with locating_errors(self._resources):
            return route_batch(
                self._resources, judged, plans, budget_ms, or_fastest=or_fastest, prefers_guided=prefers_guided, scheduler=scheduler
            )

    def _judge(self, request: Request, check: Callable[[], None] | None = None) -> Judgement:
        """The expected quality of each candidate; check: called while other threads judge, what it raises ends the waiting."""
        self._check_call()
        check = check or self._check_usable
        if self._resources.states_source is None and not self._resources.router_calls:
            return self._resources.quality.judge(self._resources.words(request), None)
        engines = self._resources.engines.lease()
        engines.phase = Phase(tuple(call.engine for call in self._resources.routing_calls()))
        try:
            with self._turn_to_judge(check), self._resources.reading.held(check), locating_errors(self._resources):
                return self._resources.judge(request, engines)
        except StateError:
            stop_if_exiting()
            raise
        finally:
            engines.release()
            self._finish_closing()

    @contextmanager
    def _turn_to_judge(self, check: Callable[[], None]) -> Iterator[None]:
        """Keep the device until the block ends, if engines may have to leave for those of the router."""
        if not self._resources.takes_turns:
            yield
            return
        self._check_not_nested()
        ticket = Ticket()
        self._tickets.add(ticket)
        self._device.enter(ticket, None)
        try:
            with self._device.turn(ticket, check, polls=True):
                yield
        finally:
            self._device.leave(ticket)
            self._tickets.discard(ticket)

    def generate(
        self,
        prompt: str | Request,
        *,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
        **options: Unpack[RequestOptions],
    ) -> Result:
        """Generate images of `prompt` with the candidate of the best expected quality that fits `max_ms`.

        The keywords are the fields of `Request`. A run that is late skips steps or changes to a faster decoder to keep its budget, one that
        has time left may become a better candidate of the same denoiser, and the result reports both. The same seed, candidate and engine
        give the same pixels, bit for bit, unless steps were skipped or added.
        on_step: called after each denoiser call; returning False cancels the request.
        cancel: an event to set from another thread; the request ends after the denoiser call that is running.
        Raises PromptError, ConfigError, BudgetError (nothing fits), BusyError (`max_waiting`), CancelledError, EngineError, and StateError
        if the runtime is closed, or if the call comes from a callback and would wait for itself.
        """
        check_callback("on_step", on_step)
        stream = self.stream(prompt, cancel=cancel, **options)
        return stream.run(None if on_step is None else partial(self._call_back, stream.ticket, on_step))

    def stream(self, prompt: str | Request, *, cancel: threading.Event | None = None, **options: Unpack[RequestOptions]) -> Stream:
        """`generate` as an iterator: yields a StepEvent after each denoiser call, and finally the Result.

        Invalid arguments raise at this call, and its clock starts. The work is done while the iterator advances, in any thread. Between
        two items it holds nothing: other requests go on. Closing or dropping the iterator cancels the request.
        """
        self._check_call()
        self._check_not_nested()
        return self._open_stream(self._check_runnable(make_request(prompt, **options)), cancel)

    def _open_stream(self, request: Request, cancel: threading.Event | None, spent_ms: float = 0.0) -> Stream:
        self._check_call()
        check_event("cancel", cancel)
        stream = Stream(
            self._resources,
            self._device,
            request,
            seed=int(np.random.default_rng().integers(2**32 - request.count)) if request.seed is None else request.seed,
            cancel=cancel,
            max_waiting=self._max_waiting,
            check=self._check_not_nested,
            check_running=self._check_usable,
            on_end=self._forget,
            spent_ms=check_spent(spent_ms),
        )
        self._tickets.add(stream.ticket)
        return stream

    def submit(
        self,
        prompt: str | Request,
        *,
        on_step: OnStep | None = None,
        on_route: Callable[[Route], object] | None = None,
        cancel: threading.Event | None = None,
        spent_ms: float = 0.0,
        refuse_early: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Job:
        """`generate` in a thread of its own; returns at once. Invalid arguments raise at this call, and so does BusyError.

        on_step: called in that thread; returning False cancels the request. It may take its time and use the runtime: others go on.
        on_route: called in that thread with the route when the request is accepted, and again when after a wait another candidate takes
            the place of the first. It should return soon.
        spent_ms: milliseconds of the budget that passed before this call, such as those since a client's request arrived.
        refuse_early: raise BudgetError at this call, before any work, if behind the other requests nothing can fit, whatever the prompt.
        """
        refuse_early = check_flag("refuse_early", refuse_early)
        return self._start(prompt, on_step, cancel, on_route=on_route, spent_ms=spent_ms, refuse_early=refuse_early, **options)

    def _start(
        self,
        prompt: str | Request,
        on_step: OnStep | None,
        cancel: threading.Event | None,
        *,
        on_route: Callable[[Route], object] | None = None,
        pauses: bool = True,
        spent_ms: float = 0.0,
        refuse_early: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Job:
        """A job; pauses: whether `on_step` may take its time."""
        check_callback("on_step", on_step)
        check_callback("on_route", on_route)
        stream = self._open_stream(self._check_runnable(make_request(prompt, **options)), cancel, spent_ms)
        stream.enter_queue()
        stream.expect(self._least, refuse_early=refuse_early)
        return Job(stream, on_step, on_route=on_route, pauses=pauses)

    async def generate_async(
        self,
        prompt: str | Request,
        *,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
        **options: Unpack[RequestOptions],
    ) -> Result:
        """`generate` for asyncio: the event loop goes on meanwhile. Cancelling the task cancels the request.

        on_step: called in the event loop's thread; the work does not wait for it.
        """
        check_callback("on_step", on_step)
        result: Result | None = None
        async with aclosing(self.stream_async(prompt, cancel=cancel, **options)) as events:
            async for event in events:
                if isinstance(event, Result):
                    result = event
                elif on_step is not None and on_step(event) is False:
                    break
        if result is None:
            raise CancelledError
        return result

    async def stream_async(
        self, prompt: str | Request, *, cancel: threading.Event | None = None, **options: Unpack[RequestOptions]
    ) -> AsyncGenerator[StepEvent | Result, None]:
        """`stream` for asyncio. The work goes on while the consumer is busy, and events wait for it; ending the iteration cancels it."""
        import asyncio

        loop = asyncio.get_running_loop()
        events: asyncio.Queue[StepEvent | Job] = asyncio.Queue()

        def put(event: StepEvent | Job) -> bool:
            try:
                loop.call_soon_threadsafe(events.put_nowait, event)
            except RuntimeError:  # the event loop was closed: nobody waits for the rest
                return False
            return True

        job = self._start(prompt, put, cancel, pauses=False, **options)
        job.add_done_callback(put)
        try:
            while isinstance(event := await events.get(), StepEvent):
                yield event
            yield job.result()
        finally:
            job.cancel()

    async def route_async(self, prompt: str | Request, *, latest: str | None = None, **options: Unpack[RequestOptions]) -> Route:
        """`route` for asyncio: the event loop goes on meanwhile. Cancelling the task ends the waiting for other calls."""
        import asyncio  # slow to load

        cancel = threading.Event()
        try:
            return await asyncio.to_thread(lambda: self.route(prompt, cancel=cancel, latest=latest, **options))
        finally:
            cancel.set()

    def _call_back(self, ticket: Ticket, on_step: OnStep, event: StepEvent) -> bool | None:
        """Call the caller's function, which must not call `generate` in turn. ticket: of the request, at whose end the ban ends."""
        self._calling.ticket = ticket
        try:
            return on_step(event)
        finally:
            self._calling.ticket = None

    def _check(self, request: Request) -> Request:
        """The request; raises ConfigError if its candidate does not exist, or none can make images of its size or run its scheduler."""
        problems, candidates = list[ConfigError | EngineError](), [each for each in self._resources.candidates(request) if each.has_bundle]
        for candidate in candidates:
            family = self._resources.family(candidate)
            try:
                size = family.size(request)
                if request.scheduler is not None:
                    family.plan(candidate, size, request.scheduler)
            except (ConfigError, EngineError) as error:
                problems.append(error)
        if problems and len(problems) == len(candidates):
            raise problems[0]
        return request

    def _check_runnable(self, request: Request) -> Request:
        """`_check`, and raises ConfigError if no candidate that the request allows has a bundle."""
        allowed = self._resources.candidates(request)
        if not any(each.has_bundle for each in allowed):
            expected = "a candidate with a bundle: this pool has only labels of it"
            raise ConfigError("candidate", ", ".join(each.name for each in allowed), expected)
        return self._check(request)

    def preload(self, *, progress: OnOpen | None = None, cancel: threading.Event | None = None) -> None:
        """Load every engine of the pool and run each once, so that no request spends time on it. Raises EngineError, CancelledError.

        Takes turns with requests after each engine. progress and cancel: as in `open`; what is loaded when it is cancelled stays loaded.
        """
        from costroute_rt.engines.building.progress import Tracker

        tracker = Tracker(progress, cancel, self._resources.clock)
        self._warm_up(tracker)
        tracker.finish()

    def _warm_up(self, tracker: Tracker) -> None:
        from costroute_rt.generation.warm_up import warm_up

        def check() -> None:
            self._check_usable()
            tracker.check()

        self._check_call()
        self._check_not_nested()
        ticket, units, polls = Ticket(), warm_up(self._resources, tracker), tracker.poll is not None
        self._tickets.add(ticket)
        self._device.enter(ticket, None)
        try:
            has_more = True
            while has_more:
                with self._device.turn(ticket, check, polls=polls), self._resources.reading.held(check), locating_errors(self._resources):
                    has_more = next(units, False)
        finally:
            self._device.leave(ticket)
            self._forget(ticket)
            if self._is_closed:
                stop_if_exiting()

    def unload(self) -> tuple[str, ...]:
        """Close every engine that no request uses, to free its memory; requests load what they need, within their budgets.

        Returns the names of the engines. Waits for the unit of work that runs now.
        """
        self._check_call()
        self._check_not_nested()
        ticket = Ticket()
        self._tickets.add(ticket)
        self._device.enter(ticket, None)
        try:
            with self._device.turn(ticket, self._check_usable), self._resources.reading.held(self._check_usable):
                return self._resources.engines.unload()
        finally:
            self._device.leave(ticket)
            self._forget(ticket)

    def close(self) -> None:
        """Release every engine, after the unit of work that runs now, and end the background build. May be called again, and anywhere.

        Requests that run or wait end with StateError, and so do later calls. In a callback or a signal handler that interrupted work, the
        engines are released when that work ends.
        """
        if os.getpid() != self._process:  # the engines belong to the process that opened them
            return
        self._is_closed = True
        tickets = list(self._tickets)
        self._device.wake(tickets)
        self._device.wait_for(tickets)
        if self._is_working():  # a callback or a signal handler: the work that it interrupted uses them
            self._closing_thread = threading.get_ident()
        else:
            self._release()

    def _is_working(self) -> bool:
        """Whether the calling thread is using engines now."""
        return self._device.runs_here(self._tickets) or self._resources.reading.is_mine

    def _finish_closing(self) -> None:
        """Called at the end of each piece of work: release the engines if `close` could not."""
        if self._closing_thread == threading.get_ident() and not self._is_working():
            self._release()

    def _release(self) -> None:
        with self._lock:
            if self._is_released:
                return
            if self._resources.upgrade is not None:
                self._resources.upgrade.close()
            with self._resources.reading.held():
                self._resources.engines.close()
            self._is_released = True

    def _forget(self, ticket: Ticket) -> None:
        """Called at the end of a request."""
        self._tickets.discard(ticket)
        self._finish_closing()

    def __repr__(self) -> str:
        setup, state = self._resources.setup, ", closed" if self._is_closed else ""
        engines = f"{setup['backend']} {setup['provider']} {setup['precision']}"
        families = "+".join(self._resources.families) or "without bundles"
        return f"<Runtime {families}: {len(self.candidates)} candidates on {engines}{state}>"

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise StateError("a runtime cannot be copied or sent to another process", "open one there", reason=Reason.OTHER_PROCESS)

    def _check_call(self) -> None:
        """`_check_usable` at the start of a call, outside of locks."""
        try:
            self._check_usable()
        except StateError:
            stop_if_exiting()
            raise

    def _check_usable(self) -> None:
        """Raise StateError if the runtime is closed or belongs to another process."""
        if os.getpid() != self._process:
            problem = "this runtime was opened by another process, of which this one is a fork"
            raise StateError(problem, "open one in each process, after the fork", reason=Reason.OTHER_PROCESS)
        if self._is_closed:
            raise make_closed_error()

    def _check_not_nested(self) -> None:
        """The same, and raise StateError in a callback, or in a signal handler that interrupted work: it would wait for itself."""
        self._check_usable()
        if getattr(self._calling, "ticket", None) in self._tickets:
            problem = "on_step called the runtime that called it"
            raise StateError(problem, "return from on_step first, or use submit", reason=Reason.NESTED)
        if self._device.is_mine or self._resources.reading.is_mine:
            problem = "a callback or signal handler called the runtime in the middle of its thread's work"
            raise StateError(problem, "return from it first, or use submit", reason=Reason.NESTED)


@contextmanager
def locating_errors(resources: Resources) -> Iterator[None]:
    """Fill the bundle and setup of the engine into EngineErrors that pass through."""
    try:
        yield
    except EngineError as error:
        raise resources.located(error) from error.__cause__
