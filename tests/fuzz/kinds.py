"""The kinds of cases, and how often each is tried."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.fuzz.api import try_calls
from tests.fuzz.case import Case, draw_environment, invoke
from tests.fuzz.command_line import changed_by, draw_command
from tests.fuzz.damage import try_bundle, try_file, try_graphs, try_store
from tests.fuzz.process import try_process
from tests.fuzz.reading import try_readers


def try_command(case: Case) -> None:
    """One or two command lines on intact files, in this process."""
    odd_paths, may_change = case.place.make_odd_paths(), set[str]()
    digests = [each.name for each in (case.place.root / "home/engines").iterdir()]
    for _ in range(case.random.choice((1, 1, 2))):
        arguments = draw_command(case.random, odd_paths, digests)
        may_change |= changed_by(arguments)
        interrupt_s = case.random.uniform(0.001, 0.5) if case.random.random() < 0.05 else None
        invoke(case, arguments, draw_environment(case.random, case.place), interrupt_s=interrupt_s)
    case.problems += case.place.problems(case.template, may_change=may_change)


KINDS: dict[str, tuple[float, Callable[[Case], None]]] = {
    "command": (0.35, try_command),
    "bundle": (0.15, try_bundle),
    "graphs": (0.08, try_graphs),
    "store": (0.12, try_store),
    "file": (0.13, try_file),
    "api": (0.12, try_calls),
    "reading": (0.1, try_readers),
    "process": (0.03, try_process),
}
"""Share of the cases, and what makes one."""


def draw_kind(random: Random, number: int) -> str:
    """The kind of a case by its number: the first cases are one of each kind."""
    if number < len(KINDS):
        return list(KINDS)[number]
    return random.choices(list(KINDS), [share for share, _ in KINDS.values()])[0]
