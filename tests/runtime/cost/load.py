"""A simulated device that other programs load for a while, and clients that ask it for images."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean

from costroute_rt.error import BudgetError
from costroute_rt.result import Result
from tests.runtime.fakes import FakeDevice

RETRY_MS = 50.0
"""Time that a client waits after a refusal."""


@dataclass
class Load:
    """Times by which the device is slower, as (from second, to second, factor)."""

    spans: tuple[tuple[float, float, float], ...]

    def put_on(self, device: FakeDevice) -> None:
        """Apply the load to every later call; its seconds count from now."""
        start = device.clock.now

        def slow_down(name: str) -> None:
            now = device.clock.now - start
            device.slowdown[""] = next((factor for begin, end, factor in self.spans if begin <= now < end), 1.0)

        device.on_call.append(slow_down)


@dataclass
class Answer:
    """What a client got for one request."""

    asked_s: float
    max_ms: float | None
    result: Result | None = None
    refusal: BudgetError | None = None


def ask(device: FakeDevice, until_s: float, budget: Callable[[], float | None], gap: Callable[[], float] = lambda: 0.0) -> Iterator[Answer]:
    """Requests one after the other until the clock shows `until_s`, with gaps between them in milliseconds."""
    while device.clock.now < until_s:
        max_ms = budget()
        answer = Answer(device.clock.now, max_ms)
        try:
            answer.result = device.runtime.generate("a house", seed=1, max_ms=max_ms)
        except BudgetError as refusal:
            answer.refusal = refusal
            device.clock.pass_ms(RETRY_MS)
        yield answer
        device.clock.pass_ms(gap())


def summary(answers: list[Answer]) -> Mapping[str, float]:
    """Shares of requests that were served, and of served ones that kept their budget."""
    served = [answer for answer in answers if answer.result is not None]
    return {
        "asked": len(answers),
        "served": len(served),
        "met": mean(answer.result is not None and answer.result.met is not False for answer in served) if served else 1.0,
        "met of all": mean(answer.result is not None and answer.result.met is not False for answer in answers),
    }


def gaps(seed: int, most_ms: float) -> Callable[[], float]:
    """Random times between requests."""
    rng = random.Random(seed)
    return lambda: rng.uniform(0, most_ms)
