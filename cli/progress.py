"""Progress on stderr: bars on a terminal, nothing or one line in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from costroute_rt.cli.failure import say

if TYPE_CHECKING:
    from types import TracebackType

    from costroute_rt.engines.building.progress import OpenEvent
    from costroute_rt.result import StepEvent

_BAR = 20
"""Characters of a bar."""
_SHOWN_FROM_S = 1.0
"""Loading and warming up are shown on a terminal if they take longer."""
_DOING = {"build": "building", "measure": "measuring", "load": "loading", "warm_up": "warming up"}


def is_on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None where a program without a console starts this one


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
            click.echo(f"\r{bar} {text}\x1b[K", err=True, nl=False)
            self._is_shown = True

    def _clear(self) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._is_shown = False


def describe_s(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _describe_left(event: OpenEvent, form: str) -> str:
    return "" if event.remaining_s is None else form.format(describe_s(event.remaining_s))
