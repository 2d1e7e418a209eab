"""Progress on stderr: bars on a terminal, nothing or one line in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from costroute_rt.cli.failure import say

if TYPE_CHECKING:
    from costroute_rt.result import StepEvent


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
