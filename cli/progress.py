"""Progress on stderr: bars on a terminal, nothing or one line in a pipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from costroute_rt.cli.failure import say

if TYPE_CHECKING:
    from costroute_rt.result import StepEvent

_BAR = 20
"""Characters of a bar."""
_REFRESH_S = 0.1


def is_on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None where a program without a console starts this one


class Status:
    """One line at the bottom of the terminal that shows how far a run is; shows nothing without a terminal."""

    def __init__(self, clock: Callable[[], float], total: int | None = None, noun: str = "lines") -> None:
        """total: of what is counted; None if it is unknown."""
        self._clock, self._total, self._noun = clock, total, noun
        self._started_s: float | None = None
        self._shown_s = -math.inf
        self._is_hidden = not is_on_terminal()

    def start(self) -> None:
        """Starts the clock; further calls do nothing."""
        self._started_s = self._clock() if self._started_s is None else self._started_s

    def show(self, done: int, *, worked: int, extra: str = "") -> None:
        """Shows the progress. worked: how many of `done` took time since the start; the others say nothing about the time to go."""
        if not self._is_hidden and self._clock() >= self._shown_s + _REFRESH_S:
            self._write(self.format(done, worked=worked, extra=extra))
            self._shown_s = self._clock()

    def wait(self, text: str) -> None:
        """Shows what is going on instead of the progress."""
        if not self._is_hidden:
            self._write(text)

    def clear(self) -> None:
        """Removes the line, so that other output can be written."""
        if not self._is_hidden:
            self._write("")
            self._shown_s = -math.inf

    def format(self, done: int, *, worked: int, extra: str = "") -> str:
        """`[#####---------------]  25/100 lines, 1 min 15 s to go`."""
        extra = f", {extra}" if extra else ""
        if self._total is None:
            return f"{done} {self._noun}{extra}"
        left, to_go = max(0, self._total - done), ""
        if self._started_s is not None and worked and left:
            to_go = f", {format_time((self._clock() - self._started_s) / worked * left)} to go"
        filled = round(_BAR * min(1.0, done / max(1, self._total)))
        return f"[{'#' * filled}{'-' * (_BAR - filled)}] {done:>{len(str(self._total))}}/{self._total} {self._noun}{to_go}{extra}"

    def _write(self, text: str) -> None:
        with suppress(OSError):
            click.echo(f"\r{text}\x1b[K" + ("" if text else "\r"), err=True, nl=False)


def format_time(seconds: float) -> str:
    """`45 s`, `1 min 15 s`, `3 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    return f"{minutes} min {whole % 60:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def step_bar(label: str, *, hidden: bool = False) -> Iterator[Callable[[StepEvent], None] | None]:
    """A bar over denoiser calls, for `on_step`; None without a terminal."""
    if hidden or not is_on_terminal():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def advance(event: StepEvent) -> None:
            bar.length = event.total  # re-planning may have dropped some
            bar.update(event.index - bar.pos)

        yield advance


def building_notice(reason: str) -> Callable[[str, int, int], None]:
    """Called by `build_engines` before each engine: announces the build once, and on a terminal each engine."""
    is_announced = False

    def notice(engine: str, index: int, total: int) -> None:
        nonlocal is_announced
        if not is_announced:
            say(f"{reason} {total} engines for this machine")
            is_announced = True
        if is_on_terminal():
            say(f"  {index + 1}/{total} {engine}")

    return notice


def share_notice() -> Callable[[str, float], None] | None:
    """Called by `build_engines` while an engine is built, to show on a terminal how much of it is done; None without a terminal."""
    if not is_on_terminal():
        return None

    def notice(engine: str, share: float) -> None:
        click.echo(f"\r    {share:4.0%} of {engine}\x1b[K\r", err=True, nl=False)

    return notice
