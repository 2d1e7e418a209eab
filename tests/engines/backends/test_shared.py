"""Open engines that several runtimes of a process share."""

from __future__ import annotations

import gc
import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from costroute_rt.engines.backends.shared import open_count, share_engine
from costroute_rt.error import EngineError, Reason


class Engine(SimpleNamespace):
    """An engine that notices two runs at once."""

    def __init__(self) -> None:
        super().__init__(key=None, provider="cpu", inputs={}, outputs={}, resident_bytes=7, runs=0, running=0, most=0, closed=0)

    def run(self, feeds: Any) -> dict[str, Any]:
        assert not self.closed
        self.running += 1
        self.most = max(self.most, self.running)
        threading.Event().wait(0.001)
        self.runs, self.running = self.runs + 1, self.running - 1
        return dict(feeds)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def nothing_is_open() -> Any:
    assert open_count() == 0
    yield
    assert open_count() == 0


def opened(engine: Engine) -> Any:
    return lambda: engine


def test_the_second_user_gets_the_same_engine_and_the_last_one_closes_it() -> None:
    engine = Engine()
    first, second = share_engine("a", opened(engine)), share_engine("a", opened(Engine()))
    assert open_count() == 1
    first.close()
    first.close()  # twice is once
    assert (second.run({"x": 1}), engine.closed) == ({"x": 1}, 0)
    with pytest.raises(EngineError) as caught:
        first.run({})
    assert caught.value.reason is Reason.CLOSED
    second.close()
    assert engine.closed == 1
    with share_engine("a", opened(other := Engine())) as third:
        third.run({})
    assert (other.runs, other.closed) == (1, 1)


def test_what_differs_is_not_shared() -> None:
    one, other = Engine(), Engine()
    with share_engine(("path", "sha", 1), opened(one)), share_engine(("path", "sha", 2), opened(other)):
        assert open_count() == 2
    assert (one.closed, other.closed) == (1, 1)


def test_runs_of_several_users_take_turns() -> None:
    engine = Engine()
    handles = [share_engine("a", opened(engine)) for _ in range(4)]
    threads = [threading.Thread(target=lambda each=each: [each.run({}) for _ in range(5)]) for each in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (engine.runs, engine.most) == (20, 1)
    for each in handles:
        each.close()
    assert engine.closed == 1


def test_several_threads_open_an_engine_once() -> None:
    made, handles, together = list[Engine](), list[Any](), threading.Barrier(4)

    def open_slowly() -> Any:
        threading.Event().wait(0.01)
        made.append(Engine())
        return made[-1]

    def use() -> None:
        together.wait()
        handles.append(share_engine("a", open_slowly))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    for each in handles:
        each.close()
    assert made[0].closed == 1


def test_an_engine_that_does_not_open_leaves_nothing() -> None:
    def fail() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share_engine("a", fail)
    assert open_count() == 0


def test_a_dropped_engine_is_freed() -> None:
    share_engine("a", Engine)
    gc.collect()
    assert open_count() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, which Windows does not")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_shares_and_closes_nothing_of_its_parent() -> None:
    engine, own = Engine(), Engine()
    handle = share_engine("a", opened(engine))
    child = os.fork()
    if not child:
        code = 1
        try:
            handle.close()
            again = share_engine("a", opened(own))
            again.close()
            code = 0 if (engine.closed, own.closed, open_count()) == (0, 1, 0) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert open_count() == 1
    handle.close()
    assert engine.closed == 1


class Closing(str):
    """An identity that closes another engine when it is looked up, as a finalizer may at any moment."""

    other: Any = None

    def __hash__(self) -> int:
        if self.other is not None:
            self.other.close()
        return super().__hash__()


def test_a_finalizer_may_close_an_engine_while_another_one_is_looked_up() -> None:
    identity, other, found = Closing("a"), Engine(), list[Any]()
    identity.other = share_engine("b", opened(other))
    thread = threading.Thread(target=lambda: found.append(share_engine(identity, opened(Engine()))), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert other.closed == 1
    found[0].close()
