"""Background builds of several bundles, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from costroute_rt.family.upgrade import Builders

DONE = {"state": "done"}


@dataclass
class FakeBuilder:
    """A builder that reports what it is given."""

    reports: list[dict[str, Any]]
    calls: list[str] = field(default_factory=list)

    def events(self) -> Iterator[dict[str, Any]]:
        yield from self.reports

    def close(self) -> None:
        self.calls.append("close")

    def release(self) -> None:
        self.calls.append("release")


def make(*reports: list[dict[str, Any]]) -> tuple[list[FakeBuilder], Builders]:
    builders, started = [FakeBuilder(each) for each in reports], list[FakeBuilder]()

    def starter(builder: FakeBuilder) -> Callable[[], FakeBuilder]:
        def start() -> FakeBuilder:
            started.append(builder)
            return builder

        return start

    return started, Builders([starter(each) for each in builders])


def ready(name: str) -> dict[str, Any]:
    return {"engine": name, "state": "ready"}


def test_all_are_done_when_the_last_one_is() -> None:
    started, builders = make([ready("a"), DONE], [ready("b"), DONE])
    events = builders.events()
    assert (next(events), len(started)) == (ready("a"), 1)  # the second starts when the first is done
    assert [*events] == [ready("b"), DONE]
    builders.release()
    assert [each.calls for each in started] == [["release"], ["release"]]


def test_a_failure_ends_them() -> None:
    failed = {"state": "failed", "reason": "no room"}
    started, builders = make([ready("a"), failed], [ready("b"), DONE])
    assert ([*builders.events()], len(started)) == ([ready("a"), failed], 1)


def test_closing_starts_no_more() -> None:
    started, builders = make([ready("a"), DONE], [ready("b"), DONE])
    events = builders.events()
    next(events)
    builders.close()
    assert ([*events], [each.calls for each in started]) == ([DONE], [["close"]])
