from __future__ import annotations

import pytest

from costroute_rt.cli import progress
from costroute_rt.cli.progress import Status, format_time
from tests.runtime.fakes import FakeClock


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (75, "1 min 15 s"), (3599, "59 min 59 s"), (11100, "3 h 05 min")]
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_time_to_go_counts_the_lines_that_took_time() -> None:
    clock = FakeClock()
    status = Status(clock, 100)
    status.start()
    clock.pass_ms(10_000)
    status.start()
    assert status.format(50, worked=10) == "[##########----------]  50/100 lines, 50 s to go"
    assert status.format(50, worked=0) == "[##########----------]  50/100 lines"
    assert status.format(100, worked=60, extra="3 failed") == "[####################] 100/100 lines, 3 failed"


def test_without_a_total_lines_are_counted() -> None:
    assert Status(FakeClock()).format(7, worked=7, extra="1 failed") == "7 lines, 1 failed"


def test_nothing_is_shown_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    status = Status(FakeClock(), 3)
    status.show(1, worked=1)
    status.wait("judging")
    status.clear()
    assert capsys.readouterr() == ("", "")


def test_the_line_is_refreshed_ten_times_a_second(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "is_on_terminal", lambda: True)
    clock = FakeClock()
    status = Status(clock, 1000)
    for done in range(100):
        status.show(done, worked=0)
        clock.pass_ms(10)
    assert 8 <= capsys.readouterr().err.count("\r") <= 11
    status.clear()
    status.show(100, worked=0)
    assert capsys.readouterr().err.count("100/1000") == 1
