"""W9: waiting for a lock is reported with its holder, and ends."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from costroute_rt.engines.store import lock as lock_module
from costroute_rt.engines.store.lock import LIMIT_S, hold_lock
from costroute_rt.error import CancelledError, EngineError, Reason

HOLD = """import sys
from pathlib import Path
from costroute_rt.engines.store.lock import hold_lock
with hold_lock(Path(sys.argv[1]), 'engine'):
    print('held', flush=True)
    sys.stdin.read()"""


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


class Held(Exception):
    pass


def fake_acquire(free_after: int) -> tuple[list[float], object]:
    """A lock that others hold for so many attempts, and the limits that it was asked with."""
    asked = list[float]()

    def acquire(timeout_s: float) -> None:
        asked.append(timeout_s)
        if len(asked) <= free_after:
            raise TimeoutError

    return asked, acquire


def test_a_wait_of_two_seconds_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "engine.holder").write_text(json.dumps({"pid": 4321, "user": "bob", "host": "box"}))
    with caplog.at_level(logging.WARNING):
        for attempts in (2, 9):
            _, acquire = fake_acquire(attempts)
            lock_module._wait(acquire, tmp_path / "engine.holder", None, None, None, Clock())  # type: ignore[arg-type]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == "waiting for process 4321 of bob on box, which is building, measuring or removing the same engine"


def test_the_wait_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "engine.holder").write_text(json.dumps({"pid": 4321, "user": "", "host": ""}))
    asked, acquire = fake_acquire(10**9)
    with pytest.raises(EngineError, match="process 4321 has kept its lock for 120 minutes; end the programs that use it") as caught:
        lock_module._wait(acquire, tmp_path / "engine.holder", None, None, None, Clock())  # type: ignore[arg-type]
    assert (caught.value.reason, len(asked)) == (Reason.IN_USE, int(LIMIT_S) + 1)
    asked, acquire = fake_acquire(10**9)
    with pytest.raises(TimeoutError):
        lock_module._wait(acquire, tmp_path / "engine.holder", 5.0, None, None, Clock())  # type: ignore[arg-type]
    assert len(asked) == 6


def test_a_caller_is_asked_while_it_waits_and_may_give_up(tmp_path: Path) -> None:
    waits, polls = list[str](), list[object]()

    def poll(done: float | None) -> None:
        polls.append(done)
        if len(polls) == 3:
            raise CancelledError

    waiting = hold_lock(tmp_path, "engine", poll=poll, on_wait=lambda: waits.append("once"))
    with hold_lock(tmp_path, "engine"), pytest.raises(CancelledError):
        waiting.__enter__()
    assert (waits, polls) == (["once"], [None, None, None])


NO_RECORDS = (
    "", "[]", "null", "{}", "[" * 3000, "x" * 9999, '{"pid": "1", "user": "bob", "host": "box"}',
    '{"pid": 1, "user": "\\u001b]0;x", "host": "box"}',
)  # fmt: skip


@pytest.mark.parametrize("text", NO_RECORDS)
def test_a_record_that_cannot_be_read_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "engine.holder").write_text(text)
    assert lock_module._describe_holder(tmp_path / "engine.holder") == "another process"
    assert lock_module._describe_holder(tmp_path / "missing") == "another process"


def test_a_record_is_as_long_as_the_lock_is_held(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "locks", "engine"):
        assert lock_module._describe_holder(tmp_path / "locks/engine.holder").startswith(f"process {os.getpid()}")
    assert not (tmp_path / "locks/engine.holder").exists()
    with pytest.raises(Held), hold_lock(tmp_path / "locks", "engine"):
        raise Held
    assert not (tmp_path / "locks/engine.holder").exists()


def test_the_holder_is_another_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError), hold_lock(tmp_path, "engine", timeout_s=0):
            pass
        assert lock_module._describe_holder(tmp_path / "engine.holder").startswith(f"process {other.pid}")
        other.stdin.close()
    with hold_lock(tmp_path, "engine", timeout_s=0):
        pass
