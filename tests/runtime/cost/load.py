"""A client that asks a simulated device for images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from costroute_rt.error import BudgetError
from costroute_rt.result import Result
from tests.runtime.fakes import FakeDevice

RETRY_MS = 50.0
"""Time that a client waits after a refusal."""


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
