"""How the work of opening is reported: one event for building, measuring, loading and warming up engines, with the time to go."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from costroute_rt.error import CancelledError, ConfigError

Clock = Callable[[], float]


class Stage(str, Enum):
    """What is done with an engine, in this order."""

    BUILD = "build"
    MEASURE = "measure"
    LOAD = "load"
    WARM_UP = "warm_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEvent:
    """How far the work on engines is: sent when a step begins, several times a second during long ones, and when all are done."""

    stage: str
    """build, measure, load or warm_up; in the last event that of the last step."""
    engine: str | None
    """Full name of the engine; None for a step about several engines, and in the last event."""
    done: int
    """Steps that are done, of all stages; never falls, and is `total` in the last event only."""
    total: int
    """Steps of all stages, known from the first event on; 0 if nothing was to be done."""
    share: float | None
    """Finished share of the current step, 0 to 1, if it is known."""
    elapsed_s: float
    """Seconds since the work began."""
    remaining_s: float | None
    """Expected seconds to go, by recorded builds and costs and by what is done already; None if nothing is known yet."""

    @property
    def fraction(self) -> float:
        """Finished share of all steps, 0 to 1, for a bar."""
        return min(1.0, (self.done + (self.share or 0.0)) / self.total) if self.total else 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        return asdict(self)


OnOpen = Callable[[OpenEvent], "bool | None"]
"""Called with each event; returning False cancels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One engine's turn in one stage."""

    stage: Stage
    engine: str | None
    expected_s: float | None = None
    """Expected time by a record; None without one."""
    size: float = 0.0
    """Rough amount of work, compared with the other steps; for steps without a record."""


def expect_rest(left: Iterable[Step], took_s: Mapping[Step, float]) -> dict[Step, float] | None:
    """Expected seconds of each step in `left`; None if the length of a step is unknown.

    Steps without a record are expected to take, by their size, as long as the steps that are done took, else as those with a record.

    took_s: seconds that the finished steps took.
    """
    left = list(left)
    known = took_s or {step: step.expected_s for step in left if step.expected_s is not None}
    size = sum(step.size for step in known)
    rate = sum(known.values()) / size if size else None
    rest = {step: step.expected_s if step.expected_s is not None or rate is None else rate * step.size for step in left}
    expected = {step: seconds for step, seconds in rest.items() if seconds is not None}
    return expected if len(expected) == len(rest) else None


def remaining_s(
    left: Collection[Step], took_s: Mapping[Step, float], current: Step | None, spent_s: float, share: float | None
) -> float | None:
    """Expected seconds for the steps in `left`; None if the length of a step is unknown.

    current: the step that is running, among `left`, for `spent_s` seconds so far; share: the finished part of it, if it is known.
    """
    expected = expect_rest([step for step in left if not (step is current and share)], took_s)
    if expected is None:
        return None
    if current is None:
        return float(sum(expected.values()))
    if share:
        return sum(expected.values()) + spent_s * (1 - share) / share
    return sum(expected.values()) - min(spent_s, expected.get(current, 0.0))


class Tracker:
    """Reports the steps of an opening to a callback, and stops it if that, or an event, asks for it."""

    def __init__(self, progress: OnOpen | None = None, cancel: threading.Event | None = None, clock: Clock = time.perf_counter) -> None:
        """progress: called in the thread that opens. cancel: an event to set from another thread. Raises ConfigError."""
        if progress is not None:
            _check_callback(progress)
        if cancel is not None and not callable(getattr(cancel, "is_set", None)):
            raise ConfigError("cancel", cancel, "a threading.Event")
        self._progress, self._cancel, self._clock = progress, cancel, clock
        self._began_s = self._since_s = clock()
        self._plans: dict[Stage, tuple[Step, ...]] = {}
        self._done: set[Step] = set()
        self._took_s: dict[Step, float] = {}
        self._current: Step | None = None
        self._share: float | None = None
        self._total: int | None = None
        self._reported = 0

    @property
    def poll(self) -> Callable[[float | None], None] | None:
        """`tick`, for long calls to call now and then; None if nobody follows this opening."""
        return None if self._progress is None and self._cancel is None else self.tick

    def plan(self, stage: Stage, steps: Iterable[Step]) -> None:
        """The steps of a stage, in order; they replace those planned for it before.

        To be called before the first event, or with as many steps as before.
        """
        self._plans[stage] = tuple(steps)

    def start(self, stage: Stage, engine: str | None) -> None:
        """A planned step begins: everything before it is done. A step that was not planned is reported too, and not counted."""
        steps = self._steps()
        index = next((index for index, step in enumerate(steps) if (step.stage, step.engine) == (stage, engine)), None)
        self._end_current()
        if index is not None:
            self._done.update(steps[:index])
            self._current = steps[index]
        else:
            self._current = Step(stage=stage, engine=engine)
        self._since_s = self._clock()
        self.tick()

    def tick(self, share: float | None = None) -> None:
        """Report the current step again; raises CancelledError if the opening was cancelled.

        share: the finished part of it, if that is known.
        """
        if self._current is None:
            self.check()
            return
        self._share = share
        self._send(self._current.stage, self._current.engine)

    def finish(self) -> None:
        """Report that all is done."""
        steps = self._steps()
        self._end_current()
        self._done.update(steps)
        self._send(steps[-1].stage if steps else Stage.LOAD, None, is_last=True)

    def check(self) -> None:
        """Raise CancelledError if the event is set."""
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError

    def _steps(self) -> Sequence[Step]:
        return [step for stage in Stage for step in self._plans.get(stage, ())]

    def _end_current(self) -> None:
        if self._current is not None and self._current in self._steps():
            self._done.add(self._current)
            self._took_s[self._current] = self._clock() - self._since_s
        self._current = self._share = None

    def _send(self, stage: Stage, engine: str | None, *, is_last: bool = False) -> None:
        self.check()
        if self._progress is None:
            return
        left, now = [step for step in self._steps() if step not in self._done], self._clock()
        self._total = len(self._steps()) if self._total is None else self._total
        done = self._total if is_last else min(self._total - len(left), self._total - 1)
        self._reported = max(self._reported, done)
        rest_s = remaining_s(left, self._took_s, self._current, now - self._since_s, self._share)
        event = OpenEvent(
            stage=stage.value,
            engine=engine,
            done=self._reported,
            total=self._total,
            share=self._share,
            elapsed_s=round(now - self._began_s, 3),
            remaining_s=None if rest_s is None else round(rest_s, 3),
        )
        if self._progress(event) is False:
            raise CancelledError
        if not is_last:
            self.check()


def _check_callback(progress: OnOpen) -> None:
    """Raise ConfigError for what cannot be called with one event."""
    expected = "a function that takes one OpenEvent"
    if not callable(progress):
        raise ConfigError("progress", progress, expected)
    try:
        signature = inspect.signature(progress)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise ConfigError("progress", progress, f"{expected} ({error})") from error
