"""The runtime an application embeds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from costroute_rt.candidate import Candidate
from costroute_rt.error import CancelledError, ConfigError, EngineError
from costroute_rt.family.parts import Parts
from costroute_rt.family.upgrade import Building
from costroute_rt.generation.generation import Generation
from costroute_rt.generation.planner import Judged, encode_prompt, plan_works, route_batch, route_request
from costroute_rt.request import Request, check_seed, check_size
from costroute_rt.result import Result, StepEvent
from costroute_rt.route import Route

OnStep = Callable[[StepEvent], "bool | None"]


class Runtime:
    """Text to image within a latency budget, on one bundle and one device.

    Made by `Runtime.open` and closed by `with`. Safe to use from several threads: requests take turns, and the time one waits
    for its turn is reported beside its own (`Timings.waited_ms`).
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
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
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Runtime:
        """A runtime for `bundle`, a directory; None means the shipped `postcard` family.

        home: the store's directory; None means $COSTROUTE_HOME, else the user's cache directory.
        provider: the backend's execution provider; auto: its usual one.
        precision: what the engines compute in, float32, bfloat16 or float16, where the backend can; auto: float16 with TensorRT,
            else float32.
        allow_fallback: where engines of `backend` and `provider` cannot run on this machine, run ONNX Runtime on the CPU; a warning, and
            `fallback` of every result, say why.
        build: build and profile the engines that are missing, calling progress(graph, index, total) before each.
        background_build: where engines of `backend`, `provider` and `precision` are missing, start on others that are ready, else on ONNX
            Runtime on the CPU, and build the missing ones in another process at low priority. They are put in use between two images, all
            at once, when each proved right and no slower than the one it replaces, and whole pictures are no slower with them. `building`
            says how it goes; closing the runtime ends it. Not to be given with `build`.
        preload: load every engine now and call it once; otherwise each is loaded by the first request that needs it, within its budget.
        Raises BundleError, EngineError (engines missing, stale, not profiled), BackendError, ConfigError.
        """
        from costroute_rt.family.assembly import assemble_parts

        clock = time.perf_counter
        parts = assemble_parts(
            bundle,
            clock,
            home=home,
            backend=backend,
            provider=provider,
            precision=precision,
            threads=threads,
            allow_fallback=allow_fallback,
            build=build,
            background_build=background_build,
            progress=progress,
        )
        runtime = cls(parts)
        try:
            if preload:
                runtime.preload()
        except BaseException:
            runtime.close()
            raise
        return runtime

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The pool, in the bundle's order."""
        return self._parts.pool.candidates

    @property
    def family(self) -> str:
        """Name of the bundle's family."""
        return self._parts.bundle.family

    @property
    def fallback(self) -> str | None:
        """Why ONNX Runtime on the CPU stands in for what was asked for (`allow_fallback`), and what mends that; None: it does not."""
        return self._parts.fallback

    @property
    def building(self) -> Building | None:
        """How building better engines goes; None where nothing had to be built (`background_build` of `open`)."""
        return None if self._parts.upgrade is None else self._parts.upgrade.status()

    def route(
        self,
        prompt: str,
        *,
        max_ms: float | None = None,
        candidate: str | None = None,
        lam: float = 0.0,
        tolerance: float = 0.0,
        count: int = 1,
        negative_prompt: str = "",
        height: int | None = None,
        width: int | None = None,
        or_fastest: bool = False,
    ) -> Route:
        """What `generate` would choose for these arguments now, and why, without generating. Raises as `generate` does."""
        height, width = check_size(self._parts.bundle.image, height, width)
        request = Request(
            prompt=prompt, negative_prompt=negative_prompt, max_ms=max_ms, candidate=candidate, count=count, height=height, width=width,
            lam=lam, tolerance=tolerance, or_fastest=or_fastest,
        )  # fmt: skip
        quality = self._parts.quality
        if not quality.needs_states and not quality.engines:
            self._check_open()
            return route_request(self._parts, request, plan_works(self._parts, request), None)
        with self._take_turn():
            works = plan_works(self._parts, request)
            return route_request(self._parts, request, works, encode_prompt(self._parts, prompt) if quality.needs_states else None)

    def plan(
        self,
        prompts: Sequence[str | Route],
        *,
        total_ms: float | None = None,
        mean_ms: float | None = None,
        or_fastest: bool = False,
        count: int = 1,
        negative_prompt: str = "",
        height: int | None = None,
        width: int | None = None,
    ) -> list[Route]:
        """A route for each prompt that together make the most of `total_ms`, or of `mean_ms` for each: one budget, divided by need.

        Nothing is generated: give each prompt to `generate` with `candidate=route.chosen.name`. Plan again with the routes that are
        left and the time that is left to follow what really happened; a route's prompt is not judged a second time.
        or_fastest: where not even the fastest candidates fit, plan these instead of raising BudgetError. The others: as `route` has them.
        """
        if (total_ms is None) == (mean_ms is None):
            raise ConfigError("total_ms and mean_ms", (total_ms, mean_ms), "one of them")
        if not prompts:
            return []
        total_ms = len(prompts) * mean_ms if total_ms is None and mean_ms is not None else total_ms
        height, width = check_size(self._parts.bundle.image, height, width)
        requests = [
            Request(
                prompt=each.prompt if isinstance(each, Route) else each,
                negative_prompt=negative_prompt,
                max_ms=total_ms,
                count=count,
                height=height,
                width=width,
            )
            for each in prompts
        ]
        with self._take_turn():
            judged = [self._judge(each, request.prompt) for each, request in zip(prompts, requests, strict=True)]
            works = plan_works(self._parts, requests[0])
            return route_batch(self._parts, judged, works, float(requests[0].max_ms or 0.0), or_fastest=or_fastest)

    def _judge(self, known: str | Route, prompt: str) -> Judged:
        if isinstance(known, Route) and known.judgement is not None:
            return Judged(prompt, known.judgement)
        states = encode_prompt(self._parts, prompt) if self._parts.quality.needs_states else None
        return Judged(prompt, self._parts.quality.judge(prompt, states))

    def generate(
        self,
        prompt: str,
        *,
        max_ms: float | None = None,
        seed: int | None = None,
        count: int = 1,
        negative_prompt: str = "",
        candidate: str | None = None,
        or_fastest: bool = False,
        lam: float = 0.0,
        tolerance: float = 0.0,
        height: int | None = None,
        width: int | None = None,
        on_step: OnStep | None = None,
        preview: bool = False,
        cancel: threading.Event | None = None,
    ) -> Result:
        """`count` images of `prompt`, by the candidate expected to serve it best within `max_ms`.

        max_ms: milliseconds from here to uint8 pixels in host memory, all images together, loading of engines included; None: no
            budget, the best candidate. A run that is late leaves steps out to keep it, and the result says so.
        seed: 0 or more; image i is made from seed + i; None: a random one, which the result names. The same seed, candidate and
            engine give the same pixels, bit for bit, unless steps were left out.
        negative_prompt: what guided candidates steer away from.
        candidate: the only one to consider. or_fastest: run the fastest one where nothing fits, in full, and report the miss.
        lam: quality one millisecond is worth. tolerance: quality that may be given up for a cheaper candidate.
        height, width: pixels; the bundle's own where None.
        on_step: called after each denoiser call; returning False cancels. preview: give it a rough picture each time.
        cancel: set it from another thread; it takes effect after the denoiser call that is running.
        Raises PromptError, ConfigError, BudgetError (nothing fits), CancelledError, EngineError.
        """
        events = self.stream(
            prompt, max_ms=max_ms, seed=seed, count=count, negative_prompt=negative_prompt, candidate=candidate, or_fastest=or_fastest,
            lam=lam, tolerance=tolerance, height=height, width=width, preview=preview, cancel=cancel,
        )  # fmt: skip
        with closing(events):
            for event in events:
                if isinstance(event, Result):
                    return event
                if on_step is not None and on_step(event) is False:
                    break
        raise CancelledError

    def stream(
        self,
        prompt: str,
        *,
        max_ms: float | None = None,
        seed: int | None = None,
        count: int = 1,
        negative_prompt: str = "",
        candidate: str | None = None,
        or_fastest: bool = False,
        lam: float = 0.0,
        tolerance: float = 0.0,
        height: int | None = None,
        width: int | None = None,
        preview: bool = False,
        cancel: threading.Event | None = None,
    ) -> Generator[StepEvent | Result, None, None]:
        """`generate` as an iterator: a StepEvent after each denoiser call, and last the Result.

        Bad arguments raise here; the work is done between the items, and its clock starts with the first. Closing the iterator, or
        dropping it, cancels. Until it ends no other request of this runtime gets its turn.
        """
        height, width = check_size(self._parts.bundle.image, height, width)
        request = Request(
            prompt=prompt, negative_prompt=negative_prompt, max_ms=max_ms, candidate=candidate, count=count, height=height, width=width,
            lam=lam, tolerance=tolerance, or_fastest=or_fastest,
        )  # fmt: skip
        if candidate is not None:
            self._parts.pool.find(candidate)
        seed = check_seed(seed, count)
        if seed is None:
            seed = int(np.random.default_rng().integers(2**32 - count))
        return self._events(request, seed, cancel, preview)

    def _events(
        self, request: Request, seed: int, cancel: threading.Event | None, preview: bool
    ) -> Generator[StepEvent | Result, None, None]:
        with self._take_turn() as waited_ms:
            yield from Generation(self._parts, request, seed=seed, cancel=cancel, preview=preview, waited_ms=waited_ms).events()

    def preload(self) -> None:
        """Load every engine of the pool and call each once, so that no request pays for it. Raises EngineError."""
        from costroute_rt.generation.warm_up import warm_up

        with self._take_turn():
            warm_up(self._parts)

    def close(self) -> None:
        """Release every engine, after the request that is running, and end what builds in the background.

        Nothing can be asked of the runtime afterwards.
        """
        if self._owner == threading.get_ident():  # a stream this thread left unfinished: it ends here
            self._release()
        elif not self._is_closed:
            with self._take_turn():
                self._release()

    def _release(self) -> None:
        self._is_closed = True
        if self._parts.upgrade is not None:
            self._parts.upgrade.close()
        self._parts.engines.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    @contextmanager
    def _take_turn(self) -> Iterator[float]:
        """One request at a time: times of two at once would say nothing. Gives the milliseconds it waited."""
        clock, me = self._parts.clock, threading.get_ident()
        if self._owner == me:
            raise ConfigError("runtime", "asked from within a request of its own", "the running stream to be finished or closed first")
        started = clock()
        with self._turn:
            self._check_open()
            self._parts.swap_in()
            self._owner = me
            try:
                yield (clock() - started) * 1000
            except EngineError as error:
                raise self._parts.locate(error) from error
            finally:
                self._owner = None

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConfigError("runtime", "closed", "an open one: Runtime.open(...)")
