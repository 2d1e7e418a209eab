"""The events of an opening, by a fake clock: counts, time to go, and how an opening is stopped."""

from __future__ import annotations

import json
import threading
from functools import partial
from typing import Any

import pytest

from costroute_rt.engines.building.progress import OpenEvent, Stage, Step, Tracker, remaining_s
from costroute_rt.error import CancelledError, ConfigError


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def build_step(name: str, expected_s: float | None = None, size: float = 1.0) -> Step:
    return Step(stage=Stage.BUILD, engine=name, expected_s=expected_s, size=size)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def seen() -> list[OpenEvent]:
    return []


def test_steps_of_all_stages_are_counted_from_the_first_event_to_the_last(clock: Clock, seen: list[OpenEvent]) -> None:
    tracker = Tracker(seen.append, clock=clock)
    tracker.plan(Stage.LOAD, [Step(stage=Stage.LOAD, engine="a")])  # planned first, done last
    tracker.plan(Stage.BUILD, [build_step("a"), build_step("b")])
    for stage, engine in ((Stage.BUILD, "a"), (Stage.BUILD, "b"), (Stage.LOAD, "a")):
        tracker.start(stage, engine)
        clock.now += 1
    tracker.finish()
    assert [(event.stage, event.engine, event.done, event.total) for event in seen] == [
        ("build", "a", 0, 3), ("build", "b", 1, 3), ("load", "a", 2, 3), ("load", None, 3, 3),
    ]  # fmt: skip
    assert [event.elapsed_s for event in seen] == [0, 1, 2, 3]
    assert seen[-1].remaining_s == 0


def test_skipped_steps_count_as_done_and_the_count_never_falls(clock: Clock, seen: list[OpenEvent]) -> None:
    tracker = Tracker(seen.append, clock=clock)
    tracker.plan(Stage.BUILD, [build_step(name) for name in "abc"])
    tracker.start(Stage.BUILD, "a")
    tracker.start(Stage.BUILD, "c")
    tracker.plan(Stage.LOAD, [Step(stage=Stage.LOAD, engine="surprise")])
    tracker.start(Stage.LOAD, "surprise")
    tracker.start(Stage.MEASURE, "nobody planned this")
    tracker.finish()
    assert [(event.done, event.total) for event in seen] == [(0, 3), (2, 3), (2, 3), (2, 3), (3, 3)]


def test_the_time_to_go_comes_from_records(clock: Clock, seen: list[OpenEvent]) -> None:
    tracker = Tracker(seen.append, clock=clock)
    tracker.plan(Stage.BUILD, [build_step("a", 10.0), build_step("b", 20.0)])
    tracker.start(Stage.BUILD, "a")
    clock.now += 4
    tracker.tick()
    clock.now += 100  # far longer than expected
    tracker.tick()
    tracker.tick(share=0.8)  # 104 s for four fifths
    tracker.start(Stage.BUILD, "b")
    assert [event.remaining_s for event in seen] == [30.0, 26.0, 20.0, 46.0, 20.0]
    assert [event.share for event in seen] == [None, None, None, 0.8, None]
    assert seen[3].fraction == pytest.approx(0.4)


def test_without_records_the_time_to_go_comes_from_what_is_done_by_size(clock: Clock, seen: list[OpenEvent]) -> None:
    tracker = Tracker(seen.append, clock=clock)
    tracker.plan(Stage.BUILD, [build_step("a", size=1), build_step("b", size=4), build_step("c", 7.0)])
    tracker.plan(Stage.LOAD, [Step(stage=Stage.LOAD, engine="a", size=0.5)])
    tracker.start(Stage.BUILD, "a")
    clock.now += 2
    tracker.start(Stage.BUILD, "b")
    assert seen[0].remaining_s == 7 * (1 + 4 + 1 + 0.5)  # by the only record
    assert seen[1].remaining_s == 2 * 4 + 7 + 2 * 0.5


def test_the_time_to_go_is_unknown_only_without_any_knowledge() -> None:
    unknown, known = build_step("a", size=2), build_step("b", 6.0, size=3)
    assert remaining_s([unknown], {}, None, 0.0, None) is None
    assert remaining_s([unknown, known], {}, None, 0.0, None) == 2 * 2 + 6
    assert remaining_s([unknown], {}, unknown, 3.0, 0.5) == 3.0
    assert remaining_s([], {}, None, 0.0, None) == 0


def test_an_event_is_plain_data(clock: Clock, seen: list[OpenEvent]) -> None:
    tracker = Tracker(seen.append, clock=clock)
    tracker.plan(Stage.BUILD, [build_step("a", 1.23456)])
    tracker.start(Stage.BUILD, "a")
    assert json.loads(json.dumps(seen[0].to_json())) == {
        "stage": "build", "engine": "a", "done": 0, "total": 1, "share": None, "elapsed_s": 0.0, "remaining_s": 1.235,
    }  # fmt: skip


def test_nothing_to_do_is_one_event_that_is_complete(clock: Clock, seen: list[OpenEvent]) -> None:
    Tracker(seen.append, clock=clock).finish()
    assert [(event.done, event.total, event.fraction, event.remaining_s) for event in seen] == [(0, 0, 1.0, 0.0)]


def test_returning_false_cancels_and_other_falsy_values_do_not(clock: Clock) -> None:
    answers: list[Any] = [None, 0, "", False]
    tracker = Tracker(lambda event: answers.pop(0), clock=clock)
    tracker.plan(Stage.BUILD, [build_step("a")])
    tracker.start(Stage.BUILD, "a")
    tracker.tick()
    tracker.tick()
    with pytest.raises(CancelledError):
        tracker.tick()


def test_an_event_of_another_thread_cancels_with_and_without_a_callback(clock: Clock) -> None:
    for progress in (None, lambda event: None):
        cancel = threading.Event()
        tracker = Tracker(progress, cancel, clock)
        tracker.start(Stage.BUILD, "a")
        cancel.set()
        for step in (tracker.tick, tracker.check, tracker.finish):
            with pytest.raises(CancelledError):
                step()


def test_only_openings_that_somebody_follows_are_polled(clock: Clock) -> None:
    assert Tracker(None, None, clock).poll is None
    assert Tracker(None, threading.Event(), clock).poll is not None


def three(engine: str, index: int, total: int) -> None: ...


def none() -> None: ...


def named(*, event: object) -> None: ...


@pytest.mark.parametrize("callback", [three, none, named, "text", 7, object(), partial(three, "a")])
def test_a_callback_that_cannot_take_one_event_is_a_config_error(callback: Any) -> None:
    with pytest.raises(ConfigError, match="takes one OpenEvent") as caught:
        Tracker(callback)
    assert caught.value.name == "progress"


class Called:
    def __call__(self, event: OpenEvent) -> None: ...

    def method(self, event: OpenEvent, more: int = 0) -> None: ...


@pytest.mark.parametrize("callback", [Called(), Called().method, [].append, print, lambda *events: None, partial(three, "a", 1)])
def test_whatever_takes_one_event_is_a_callback(callback: Any) -> None:
    Tracker(callback)


@pytest.mark.parametrize("cancel", [True, "now", lambda: True])
def test_a_cancel_that_is_no_event_is_a_config_error(cancel: Any) -> None:
    with pytest.raises(ConfigError, match=r"threading\.Event"):
        Tracker(None, cancel)
