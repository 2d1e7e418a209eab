"""Progress on stderr: bars on a terminal, nothing or one line in a pipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from costroute_rt.cli.failure import say
from costroute_rt.plain_text import printable

if TYPE_CHECKING:
    from types import TracebackType

    from costroute_rt.engines.building.progress import OpenEvent
    from costroute_rt.export.bundle.event import ExportEvent
    from costroute_rt.result import StepEvent

_BAR = 20
"""Characters of a bar."""
_REFRESH_S = 0.1
_SHOWN_FROM_S = 1.0
"""Loading and warming up are shown on a terminal if they take longer."""
_DOING = {"build": "building", "measure": "measuring", "load": "loading", "warm_up": "warming up"}


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
            click.echo(f"\r{printable(text)}\x1b[K" + ("" if text else "\r"), err=True, nl=False)


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
    with click.progressbar(length=1, label=printable(label), file=sys.stderr) as bar:

        def advance(event: StepEvent) -> None:
            bar.length = event.total  # re-planning may have dropped some
            bar.update(event.index - bar.pos)

        yield advance


def building_notice(reason: str) -> OpeningLine:
    """What shows an opening that may have to build engines first; reason: why it builds, and the word for it."""
    return OpeningLine(reason)


class OpeningLine:
    """Shows work on engines: on a terminal one line with a bar and the time to go, in a pipe one line when a build begins.

    To be called with each event inside `with`, which clears the line.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._is_announced = self._is_shown = False

    def __call__(self, event: OpenEvent) -> None:
        builds = event.stage in ("build", "measure") and event.done < event.total
        if is_on_terminal():
            self._draw(event, is_long=builds or event.elapsed_s + (event.remaining_s or 0.0) > _SHOWN_FROM_S)
        elif builds and not self._is_announced:
            say(f"{self._reason} engines for this machine{_describe_left(event, ', about {} to go')}")
        self._is_announced = self._is_announced or builds

    def __enter__(self) -> OpeningLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._clear()
        if self._is_announced and kind is not None and (kind is KeyboardInterrupt or kind.__name__ == "CancelledError"):
            say("engines that are done are kept: the same command goes on from there")

    def _draw(self, event: OpenEvent, *, is_long: bool) -> None:
        if event.done == event.total:
            self._clear()
        elif is_long:
            full = int(_BAR * event.fraction)
            bar = f"[{'#' * full}{'-' * (_BAR - full)}] {event.done}/{event.total}"
            share = "" if event.share is None else f" {event.share:.0%}"
            text = f"{_DOING[event.stage]} {event.engine or 'all engines'}{share}{_describe_left(event, ', {} to go')}"
            click.echo(f"\r{bar} {printable(text)}\x1b[K", err=True, nl=False)
            self._is_shown = True

    def _clear(self) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._is_shown = False


class ExportLine:
    """Shows how far an export is: on a terminal in one line with a bar, in a pipe one line when it begins.

    To be called with each event inside `with`, which clears the line.
    """

    def __init__(self) -> None:
        self._is_announced = self._is_shown = False

    def __call__(self, event: ExportEvent) -> None:
        share = "" if event.share is None else f" {event.share:.0%}"
        text = f"{event.done}/{event.total} {event.part}{share}"
        self._show(event.done + (event.share or 0.0), event.total, text, f"exporting in {event.total} parts")

    def show_download(self, done_bytes: int, total_bytes: int, file: str) -> None:
        """Show a download instead."""
        share = f"{done_bytes / max(total_bytes, 1):.0%}"
        self._show(done_bytes, total_bytes, f"{share} downloading {file}", f"downloading {total_bytes >> 20} MiB")

    def __enter__(self) -> ExportLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._is_shown = False

    def _show(self, done: float, total: float, text: str, announcement: str) -> None:
        if is_on_terminal():
            full = int(_BAR * done / max(total, 1))
            click.echo(f"\r[{'#' * full}{'-' * (_BAR - full)}] {printable(text)}\x1b[K", err=True, nl=False)
            self._is_shown = True
        elif not self._is_announced:
            say(announcement)
            self._is_announced = True


def _describe_left(event: OpenEvent, form: str) -> str:
    return "" if event.remaining_s is None else form.format(format_time(event.remaining_s))
