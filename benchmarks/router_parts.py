"""Where the time of a judgement goes: the parts of `Router.judge`, each without the others that it calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from costroute_rt.routing import familiarity, tagged_encoder
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.estimator.transformer import Transformer
from costroute_rt.routing.neighbour import Neighbours
from costroute_rt.routing.prompt_encoder import HashedEncoder, StatesEncoder
from costroute_rt.routing.reduction import Reduction

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "encoder": ((HashedEncoder, "encode"), (StatesEncoder, "encode")),
    "reduction": ((Reduction, "apply"),),
    "nearest prompts": ((Neighbours, "search"),),
    "estimators": tuple((each, name) for each in (Average, Knn, Linear, Mean, Transformer) for name in ("estimate", "predict")),
    "tags": ((familiarity, "tag_prompts"), (tagged_encoder, "tag_prompts")),
    "familiarity": ((familiarity.Familiarity, "of_prompts"),),
}
"""Functions of each part, by where they are found and their name."""
REST = "all else"


class Stopwatch:
    """Seconds spent in each part since the last `take`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._spent, self._inside = clock, dict.fromkeys(PARTS, 0.0), 0.0

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts for the part, except for the time in wrapped functions that it calls."""

        def timed(*arguments: Any, **named: Any) -> Any:
            outside, self._inside = self._inside, 0.0
            started = self._clock()
            try:
                return function(*arguments, **named)
            finally:
                took = self._clock() - started
                self._spent[part] += took - self._inside
                self._inside = outside + took

        return timed

    def take(self) -> dict[str, float]:
        """The seconds of each part; they begin again at 0."""
        spent, self._spent, self._inside = self._spent, dict.fromkeys(PARTS, 0.0), 0.0
        return spent


@contextmanager
def watched() -> Iterator[Stopwatch]:
    """A stopwatch on all PARTS."""
    stopwatch = Stopwatch()
    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, stopwatch.wrap(part, getattr(owner, name))))
        yield stopwatch


def time_parts(calls: Sequence[Callable[[], object]]) -> dict[str, list[float]]:
    """Milliseconds of each part, and of all else, in each call."""
    found: dict[str, list[float]] = {part: [] for part in (*PARTS, REST)}
    with watched() as stopwatch:
        for call in calls:
            started = time.perf_counter()
            call()
            whole, spent = time.perf_counter() - started, stopwatch.take()
            for part, seconds in {**spent, REST: whole - sum(spent.values())}.items():
                found[part].append(1000 * seconds)
    return found
