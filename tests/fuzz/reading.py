"""Changed files read directly, without a command: many more changes in the same time."""

from __future__ import annotations

from tests.fuzz.case import Case
from tests.fuzz.reader import READERS

TIMES = 60
"""Changes in a case."""


def try_readers(case: Case) -> None:
    """One kind of file with many changes, one after the other."""
    name = case.random.choice(list(READERS))
    reader = READERS[name]
    path = reader.make(case.place.root)
    data = path.read_bytes()
    for number in range(TIMES):
        case.note(f"read {name} after change {number}")
        problem = reader.try_content(path, reader.change(case.random, data))
        if problem is not None:
            case.problems.append(f"change {number} of {name}: {problem}")
            return
