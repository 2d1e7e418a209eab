"""The runtime an application embeds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costroute_rt.candidate import Candidate
from costroute_rt.error import CancelledError, ConfigError, EngineError
from costroute_rt.family.resources import Resources
from costroute_rt.family.upgrade import Building
from costroute_rt.generation.generation import Generation
from costroute_rt.generation.planner import plan_calls, route_batch, route_request
from costroute_rt.judgement import Judgement
from costroute_rt.request import Request, RequestOptions, check_number, make_request
from costroute_rt.result import Result, StepEvent
from costroute_rt.route import Route

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from costroute_rt.engines.building.progress import OnOpen, Tracker

OnStep = Callable[[StepEvent], "bool | None"]


class Runtime:
    """Text to image within a latency budget, on one device.

    `Runtime.open` creates one, and `with` closes it. Safe to use from several threads: requests run one at a time, and the time that a
    request waited for others is reported apart from its own (`Timings.waited_ms`).
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._turn = threading.Lock()
        self._owner: int | None = None
        self._is_closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Path | None = None,
        *,
        home: str | Path | None = None,
        backend: str = "onnxruntime",
        provider: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        allow_fallback: bool = False,
        build: bool = False,
        background_build: bool = False,
        preload: bool = True,
        progress: OnOpen | None = None,
        cancel: threading.Event | None = None,
    ) -> Runtime:
        """Open the bundle directory `bundle`; None means the `postcard` family that ships with the package.

        home: the store's directory; None means $COSTROUTE_HOME, else the user's cache directory.
        provider: the backend's execution provider; auto means the backend's default.
        precision: float32, bfloat16 or float16, if the backend supports it; auto means float16 with TensorRT, else float32.
        threads: CPU threads of each engine run; None means one for each physical core that this process may use.
        allow_fallback: if engines of `backend` and `provider` cannot run on this machine, run ONNX Runtime on the CPU; a warning, and
            `fallback` of every result, give the reason.
        build: build and profile missing engines.
        background_build: if engines of `backend`, `provider` and `precision` are missing, start with other engines that are ready, else
            with ONNX Runtime on the CPU, and build the missing ones in another process at low priority. The new engines replace the old
            ones between two requests, all at once, if each is correct and no slower than the one it replaces, and whole images are no
            slower with them. `building` reports the state; closing the runtime ends the build. Excludes `build`.
        preload: load every engine now and run it once; otherwise the first request that needs an engine loads it, within its budget.
        progress: called with an OpenEvent when work on an engine begins, several times a second while it lasts, and when all is done;
            returning False cancels.
        cancel: an event to set from another thread; opening ends as soon as the library that is building or loading can be stopped.
        Engines that are complete when opening is cancelled or fails are kept for the next time; everything else is released.
        Raises BundleError, EngineError (engines missing, stale, not measured), BackendError, ConfigError, CancelledError.
        """
        from costroute_rt.engines.building.progress import Tracker
        from costroute_rt.family.assembly import open_resources

        tracker = Tracker(progress, cancel)
        resources = open_resources(
            bundle,
            time.perf_counter,
            home=home,
            backend=backend,
            provider=provider,
            precision=precision,
            threads=threads,
            allow_fallback=allow_fallback,
            build=build,
            background_build=background_build,
            preload=preload,
            tracker=tracker,
        )
        runtime = cls(resources)
        try:
            if preload:
                runtime._warm_up(tracker)
            tracker.finish()
        except BaseException:
            runtime.close()
            raise
        return runtime

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates of the pool, in the pool's order."""
        return self._resources.pool

    @property
    def family(self) -> str:
        """Name of the (first) family."""
        return self._resources.main_family.name

    @property
    def fallback(self) -> str | None:
        """Reason why ONNX Runtime on the CPU is used instead of what was asked for, with the fix; None if there was no fallback."""
        return self._resources.fallback

    @property
    def building(self) -> Building | None:
        """State of the background build; None if nothing had to be built (`background_build` of `open`)."""
        return None if self._resources.upgrade is None else self._resources.upgrade.status()

    def route(self, prompt: str | Request, **options: Unpack[RequestOptions]) -> Route:
        """The decision that `generate` would make for these arguments now, and why, without generating. Raises as `generate` does."""
        resources, request = self._resources, self._check(make_request(prompt, **options))
        if not resources.quality.needs_states and not resources.router_calls:
            self._check_open()
            with self._locating_errors():
                return route_request(resources, request, plan_calls(resources, request), None)
        with self._take_turn():
            plans = plan_calls(resources, request)
            return route_request(resources, request, plans, resources.text_states(request.prompt))

    def plan(
        self,
        prompts: Sequence[str | Route],
        *,
        total_ms: float | None = None,
        mean_ms: float | None = None,
        or_fastest: bool = False,
        count: int = 1,
        negative_prompt: str | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> list[Route]:
        """Divide one time budget over many prompts; returns the route of each, chosen for the highest total quality.

        Nothing is generated: give each prompt to `generate` with `candidate=route.chosen.name`. To adapt to the actual times, plan again
        with the remaining routes and the remaining time; the prompt of a route is not judged a second time.
        total_ms: budget for all prompts together. mean_ms: budget per prompt. Exactly one of them must be given.
        or_fastest: if not even the fastest candidates fit, plan these instead of raising BudgetError.
        The other arguments are fields of `Request`.
        """
        if isinstance(prompts, str):
            raise ConfigError("prompts", prompts, "a list of prompts, not a single text")
        if (total_ms is None) == (mean_ms is None):
            raise ConfigError("total_ms and mean_ms", (total_ms, mean_ms), "one of them")
        for name, value in (("total_ms", total_ms), ("mean_ms", mean_ms)):
            if value is not None and check_number(name, value, "a number of milliseconds above 0") <= 0:
                raise ConfigError(name, value, "a number of milliseconds above 0")
        if not prompts:
            return []
        each_ms = total_ms / len(prompts) if total_ms is not None else mean_ms
        shared = RequestOptions(max_ms=each_ms, count=count, negative_prompt=negative_prompt, height=height, width=width)
        requests = [self._check(make_request(each.prompt if isinstance(each, Route) else each, **shared)) for each in prompts]
        budget_ms = len(prompts) * float(requests[0].max_ms or 0.0) if total_ms is None else float(total_ms)
        with self._take_turn():
            judged = [(request.prompt, self._judge(each, request.prompt)) for each, request in zip(prompts, requests, strict=True)]
            return route_batch(self._resources, judged, plan_calls(self._resources, requests[0]), budget_ms, or_fastest=or_fastest)

    def _judge(self, known: str | Route, prompt: str) -> Judgement:
        if isinstance(known, Route) and known.judgement is not None:
            return known.judgement
        return self._resources.quality.judge(prompt, self._resources.text_states(prompt))

    def generate(
        self,
        prompt: str | Request,
        *,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
        **options: Unpack[RequestOptions],
    ) -> Result:
        """Generate images of `prompt` with the candidate of the best expected quality that fits `max_ms`.

        The keywords are the fields of `Request`. A run that is late skips steps to keep its budget, and the result reports how many. The
        same seed, candidate and engine give the same pixels, bit for bit, unless steps were skipped.
        on_step: called after each denoiser call; returning False cancels the request.
        cancel: an event to set from another thread; the request ends after the denoiser call that is running.
        Raises PromptError, ConfigError, BudgetError (nothing fits), CancelledError, EngineError.
        """
        with closing(self.stream(prompt, cancel=cancel, **options)) as events:
            for event in events:
                if isinstance(event, Result):
                    return event
                if on_step is not None and on_step(event) is False:
                    break
        raise CancelledError

    def stream(
        self, prompt: str | Request, *, cancel: threading.Event | None = None, **options: Unpack[RequestOptions]
    ) -> Generator[StepEvent | Result, None, None]:
        """`generate` as an iterator: yields a StepEvent after each denoiser call, and finally the Result.

        Invalid arguments raise at this call. The work is done while the iterator advances, and its clock starts with the first item.
        Closing or dropping the iterator cancels the request. Until it ends, other requests of this runtime wait.
        """
        request = self._check(make_request(prompt, **options))
        seed = int(np.random.default_rng().integers(2**32 - request.count)) if request.seed is None else request.seed
        return self._events(request, seed, cancel)

    def _events(self, request: Request, seed: int, cancel: threading.Event | None) -> Generator[StepEvent | Result, None, None]:
        with self._take_turn() as waited_ms:
            yield from Generation(self._resources, request, seed=seed, cancel=cancel, waited_ms=waited_ms).events()

    def _check(self, request: Request) -> Request:
        """The request; raises ConfigError if its candidate does not exist or a candidate's family cannot make images of its size."""
        for candidate in self._resources.candidates(request):
            self._resources.family(candidate).size(request)
        return request

    def preload(self, *, progress: OnOpen | None = None, cancel: threading.Event | None = None) -> None:
        """Load every engine of the pool and run each once, so that no request spends time on it. Raises EngineError, CancelledError.

        progress and cancel: as in `open`; what is loaded when it is cancelled stays loaded.
        """
        from costroute_rt.engines.building.progress import Tracker

        tracker = Tracker(progress, cancel, self._resources.clock)
        self._warm_up(tracker)
        tracker.finish()

    def _warm_up(self, tracker: Tracker) -> None:
        from costroute_rt.generation.warm_up import warm_up

        with self._take_turn():
            warm_up(self._resources, tracker)

    def close(self) -> None:
        """Release every engine after the running request has ended, and end the background build.

        Later requests raise ConfigError.
        """
        if self._owner == threading.get_ident():  # this thread has an unfinished stream, which ends here
            self._release()
        else:
            with self._turn:
                self._release()

    def _release(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._resources.upgrade is not None:
            self._resources.upgrade.close()
        self._resources.engines.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    @contextmanager
    def _take_turn(self) -> Iterator[float]:
        """Run one request at a time, because times of concurrent requests predict nothing; yields the milliseconds spent waiting."""
        clock, me = self._resources.clock, threading.get_ident()
        if self._owner == me:
            raise ConfigError("runtime", "already running a request of this thread", "that request to end, or its stream to be closed")
        started = clock()
        with self._turn:
            self._check_open()
            self._resources.swap_in()
            self._owner = me
            try:
                with self._locating_errors():
                    yield (clock() - started) * 1000
            finally:
                self._owner = None

    @contextmanager
    def _locating_errors(self) -> Iterator[None]:
        """Fill the bundle and setup of the engine into EngineErrors that pass through."""
        try:
            yield
        except EngineError as error:
            raise self._resources.located(error) from error.__cause__

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConfigError("runtime", "closed", "an open runtime: Runtime.open(...)")
