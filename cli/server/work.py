"""Works: requests as the server follows them, from their arrival until their images were fetched or have expired."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Any

from costroute_rt.cli.server.picture import Picture
from costroute_rt.cli.server.problem import Problem, problem_of

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from costroute_rt.cli.server.order import Order
    from costroute_rt.generation.job import Job
    from costroute_rt.result import Result, StepEvent
    from costroute_rt.route import Route

_MOST_EVENTS = 512
"""Of one work that are kept for clients that come back."""
_numbers = count(time.time_ns() // 1_000_000)
"""Of events. They begin with the time, so that they grow over a restart: a page that comes back names the last one that it has seen."""


class State(str, Enum):
    """How far a work is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self in (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(eq=False, slots=True)
class Event:
    """Something that happened to a work."""

    name: str
    data: dict[str, Any]
    image: Image | None = None
    """The preview of a step, until the next one."""
    partial: int | None = None
    """Which of the partial images that the order wants this step shows; that one is kept."""
    number: int = field(default_factory=lambda: next(_numbers))
    """Larger than that of any earlier event of the server."""


class Bell:
    """Wakes all that wait whenever it rings."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it rang before the time was over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Work:
    """One order and what became of it. All but the callbacks of the runtime's job is for the thread of the event loop."""

    def __init__(self, order: Order, clock: Callable[[], float]) -> None:
        self.order, self._clock = order, clock
        self.number = f"job_{secrets.token_urlsafe(15)}"
        self.created = int(time.time())
        self.state = State.QUEUED
        self.job: Job | None = None
        """None until the runtime is open and took it."""
        self.route: Route | None = None
        self.problem: Problem | None = None
        self.pictures: tuple[Picture, ...] = ()
        self.picture_names: tuple[str, ...] = ()
        """In the gallery; empty unless the order asked for it."""
        self.paths: tuple[Path, ...] = ()
        """Of copies in files, if the user wants them."""
        self.summary: dict[str, Any] = {}
        """The result without its images."""
        self.ended_s: float | None = None
        self.bell = Bell()
        self.bells: list[Bell] = []
        """Others that ring with it."""
        self.events: deque[Event] = deque(maxlen=_MOST_EVENTS)
        self.last_step: StepEvent | None = None
        self._stepped_s = 0.0
        self._partial_images = 0
        self.is_cancelled = False
        self.is_left = False
        """Whether nobody waits for it any more."""

    @property
    def elapsed_ms(self) -> float:
        """Since its arrival, until its end."""
        return ((self._clock() if self.ended_s is None else self.ended_s) - self.order.arrived_s) * 1000

    @property
    def ms_to_go(self) -> float | None:
        """Expected time until the images are there; None if it is unknown."""
        if self.state.is_over:
            return 0.0
        if self.last_step is not None:
            return max(0.0, self.last_step.remaining_ms - (self._clock() - self._stepped_s) * 1000)
        if self.route is None:
            return None
        return max(0.0, self.route.option.ms - (self._clock() - self._stepped_s) * 1000)

    @property
    def progress(self) -> float:
        """0 to 1."""
        if self.state is State.DONE:
            return 1.0
        return 0.0 if self.last_step is None else self.last_step.index / max(1, self.last_step.total)

    @property
    def last_image(self) -> Image | None:
        """The preview of the last step; None without one."""
        return None if self.last_step is None else self.last_step.preview

    def place(self) -> dict[str, Any]:
        """Where it stands in the queue."""
        found = None if self.job is None else self.job.place
        return {"ahead": None if found is None else found.ahead, "start_in_ms": None if found is None else round(found.wait_ms, 1)}

    def cancel(self) -> bool:
        """Whether it had not ended; it ends after the denoiser call that runs now."""
        if self.state.is_over:
            return False
        self.is_cancelled = True
        if self.job is not None:
            self.job.cancel()
        return True

    def took(self, job: Job) -> None:
        """The runtime has it in its queue."""
        self.job = job
        if self.is_cancelled:
            job.cancel()

    def note_queued(self) -> None:
        """Report its place in the queue."""
        self._tell("queued", {**self.place(), "ms_to_go": _rounded(self.ms_to_go)})

    def note_route(self, route: Route) -> None:
        """It was accepted, or after a wait another candidate was chosen."""
        if self.state.is_over:
            return
        is_first, self.route, self._stepped_s = self.route is None, route, self._clock()
        data = {
            "candidate": route.chosen.name,
            "reason": route.reason,
            "quality": route.option.quality,
            "expected_ms": round(route.option.ms, 1),
            "p95_ms": round(route.option.p95_ms, 1),
            "ms_to_go": round(route.option.ms, 1),
            **self.place(),
        }
        self._tell("routed" if is_first else "replanned", data)

    def note_step(self, step: StepEvent) -> None:
        """A denoiser call ended."""
        if self.state.is_over:
            return
        before, self.last_step, self._stepped_s = self.last_step, step, self._clock()
        self.state = State.RUNNING
        if before is not None and step.total != before.total:
            skipped, added = max(before.total - step.total, 0), max(step.total - before.total, 0)
            reason = "because time is left" if added else "to keep the deadline"
            data = {"step": step.index, "steps": step.total, "skipped": skipped, "added": added, "reason": reason}
            self._tell("replanned", {**data, "ms_to_go": round(step.remaining_ms, 1)})
        for event in self.events:
            if event.partial is None:
                event.image = None
        data = {
            "step": step.index,
            "steps": step.total,
            "elapsed_ms": round(self.elapsed_ms, 1),
            "ms_to_go": round(step.remaining_ms, 1),
        }
        self._tell("step", data, step.preview, self._find_partial(step))

    def _find_partial(self, step: StepEvent) -> int | None:
        """Which partial image is due with this step; they are spread over the steps, and the last step needs none."""
        found, wanted = self._partial_images, self.order.partial_images
        if found >= wanted or step.index >= step.total or step.index * (wanted + 1) < step.total * (found + 1):
            return None
        self._partial_images += 1
        return found

    def finish(self, result: Result, pictures: tuple[Picture, ...], ended_s: float) -> None:
        """Its images are there; ended_s: when their pixels were, before they were made files."""
        if self.state.is_over:
            return
        self.pictures, self.route = pictures, result.route
        self.summary = result.to_json()
        self._end(State.DONE, ended_s)

    def fail(self, error: BaseException) -> None:
        """It ended without images."""
        if self.state.is_over:
            return
        self.problem = problem_of(error)
        if self.order.request.max_ms is not None:
            self.problem.once()
        self._end(State.CANCELLED if self.problem.code == "cancelled" else State.FAILED, self._clock())

    def _end(self, state: State, ended_s: float) -> None:
        self.state, self.ended_s, self.job = state, ended_s, None
        self.order = self.order.without_images()
        if self.order.is_kept and self.last_step is not None:
            self.last_step = replace(self.last_step, preview=None)
        self.bell.ring()
        for bell in self.bells:
            bell.ring()

    def tell_end(self) -> None:
        """The last event; after the pictures have names."""
        if self.state is State.DONE:
            self._tell("done", self.to_json())
        elif self.problem is not None:
            self._tell(self.state.value, {"elapsed_ms": round(self.elapsed_ms, 1), **self.problem.to_json()})

    def _tell(self, name: str, data: dict[str, Any], image: Image | None = None, partial: int | None = None) -> None:
        self.events.append(Event(name, {"job": self.number, **data}, image, partial))
        self.bell.ring()
        for bell in self.bells:
            bell.ring()

    def events_after(self, number: int) -> Iterator[Event]:
        return (event for event in list(self.events) if event.number > number)

    async def follow(self, after: int = 0, *, timeout_s: float | None = None) -> AsyncGenerator[Event, None]:
        """Its events after that of a number, until its end; timeout_s: how often a waiting work looks at its place."""
        while True:
            fresh = list(self.events_after(after))
            for event in fresh:
                after = event.number
                yield event
            if not fresh and self.state.is_over:
                return
            if not fresh and not await self.bell.wait(timeout_s if self.is_waiting else None):
                self.look_at_place()

    @property
    def is_waiting(self) -> bool:
        """Whether it has a place in the queue."""
        return self.state is State.QUEUED and self.job is not None

    def look_at_place(self) -> None:
        """Report its place in the queue, if that has changed."""
        last = next((event for event in reversed(self.events) if "ahead" in event.data), None)
        if self.is_waiting and last is not None and self.place()["ahead"] != last.data["ahead"]:
            self.note_queued()

    async def ended(self) -> None:
        """Returns when it is over."""
        while not self.state.is_over:
            await self.bell.wait()

    async def decided(self, timeout_s: float) -> None:
        """Returns when it is accepted or over, or after that time."""
        until_s = self._clock() + timeout_s
        while self.route is None and not self.state.is_over and (left_s := until_s - self._clock()) > 0:
            await self.bell.wait(left_s)

    def met(self) -> bool | None:
        """Whether the images were there in time; None without a budget."""
        return None if self.order.request.max_ms is None else self.elapsed_ms <= self.order.request.max_ms

    def outcome(self) -> dict[str, Any]:
        """What became of it, beside the images, for answers in other servers' forms."""
        names = ("predicted_ms", "timings", "replanned", "truncated")
        return {
            "candidate": None if self.route is None else self.route.chosen.name,
            "reason": None if self.route is None else self.route.reason,
            "seed": self.summary["settings"]["seed"],
            "max_ms": self.order.request.max_ms,
            "elapsed_ms": round(self.elapsed_ms, 1),
            "met": self.met(),
            **{name: self.summary[name] for name in names},
            "notes": [*self.order.notes, *self.summary["notes"]],
        }

    def to_json(self) -> dict[str, Any]:
        """Its state, as `GET /v1/jobs/{id}` answers."""
        found: dict[str, Any] = {
            "id": self.number,
            "object": "job",
            "created": self.created,
            "client": self.order.client,
            "prompt": self.order.request.prompt,
            "state": self.state.value,
            "max_ms": self.order.request.max_ms,
            "elapsed_ms": round(self.elapsed_ms, 1),
            "ms_to_go": _rounded(self.ms_to_go),
            "candidate": None if self.route is None else self.route.chosen.name,
            **self.place(),
            "step": 0 if self.last_step is None else self.last_step.index,
            "steps": None if self.last_step is None else self.last_step.total,
            "images": [],
            "notes": list(self.order.notes),
            "error": None if self.problem is None else self.problem.to_json()["error"],
        }
        if self.state is State.DONE:
            names = self.picture_names or ("",) * len(self.pictures)
            found["images"] = [describe(picture, name) for picture, name in zip(self.pictures, names, strict=True)]
            found |= {name: self.summary[name] for name in ("route", "timings", "predicted_ms", "replanned", "truncated")}
            found |= {"met": self.met(), "notes": [*self.order.notes, *self.summary["notes"]]}
        return found


def describe(picture: Picture, name: str) -> dict[str, Any]:
    """A picture without its bytes; the path is relative to the server's address."""
    return {
        "url": f"pictures/{name}" if name else None,
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "bytes": len(picture.data),
        "seed": picture.settings.get("seed"),
        "settings": dict(picture.settings),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
