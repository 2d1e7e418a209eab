"""Long calls are followed from the thread that waits for them, and end before an error passes on."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from costroute_rt.engines.backends import polling
from costroute_rt.engines.backends.polling import run_polled
from costroute_rt.error import CancelledError


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "POLL_S", 0.001)
    monkeypatch.setattr(polling, "_PATIENCE_S", 0.001)


def test_the_result_comes_back_and_the_waiting_thread_is_called() -> None:
    polled, threads = threading.Event(), set[int]()

    def poll(share: float | None) -> None:
        assert share is None
        threads.add(threading.get_ident())
        polled.set()

    assert run_polled(lambda: polled.wait(60), poll, what="a test") is True
    assert threads == {threading.get_ident()}


def test_without_somebody_to_call_the_work_runs_here() -> None:
    assert run_polled(threading.get_ident, None, what="a test") == threading.get_ident()


@pytest.mark.parametrize("error", [CancelledError, KeyboardInterrupt])
def test_work_that_can_be_stopped_is_stopped(error: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "_PATIENCE_S", 60.0)
    stopped, before = threading.Event(), threading.active_count()

    def work() -> None:
        stopped.wait(60)
        raise ValueError("stopped")

    def poll(share: float | None) -> None:
        raise error

    with pytest.raises(error):
        run_polled(work, poll, what="a test", stop=stopped.set)
    assert threading.active_count() == before
    assert "cannot be interrupted" not in caplog.text


def test_work_that_cannot_be_stopped_is_waited_for_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    def work() -> None:
        while "cannot be interrupted" not in caplog.text:
            threading.Event().wait(0.001)
        ended.set()

    def poll(share: float | None) -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        run_polled(work, poll, what="the check of a/b/c")
    assert ended.is_set()
    assert "waiting for the check of a/b/c" in caplog.text


def test_an_error_of_the_work_passes_through() -> None:
    def work() -> None:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        run_polled(work, lambda share: None, what="a test")
