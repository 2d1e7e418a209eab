"""Every error costroute-rt raises on purpose: one root, one class per remedy.

CostrouteError            exit 1
├── ConfigError           exit 2    a value or option is wrong: change it
├── PromptError           exit 2    the prompt cannot be used: write another
├── LabelError            exit 2    a table of labels or prompts cannot be used: correct it or label again
├── BudgetError           exit 3    nothing fits the latency budget: allow more time
├── BundleError           exit 4    a bundle is broken or foreign: get it again
├── EngineError           exit 5    an engine is missing, stale or damaged: build it again
│   └── StoreFullError    exit 5    no room to write an engine: free some
├── BackendError          exit 6    a backend or provider is not there: install it
├── OutputError           exit 7    a result cannot be written: choose another place
└── CancelledError        exit 130  somebody asked to stop
"""

from __future__ import annotations

from os import PathLike, fspath


class CostrouteError(Exception):
    """Root of the errors raised on purpose; anything else that escapes is a bug."""

    exit_code = 1


class ConfigError(CostrouteError):
    """A value or option is wrong; remedy: give what was expected."""

    exit_code = 2

    def __init__(self, name: str, found: object, expected: str) -> None:
        self.name, self.found, self.expected = name, found, expected
        super().__init__(f"{name} is {found!r}: expected {expected}")


class PromptError(CostrouteError):
    """The prompt cannot be used; remedy: write another."""

    exit_code = 2

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class BudgetError(CostrouteError):
    """No candidate fits the latency budget; remedy: allow more time or ask for the fastest."""

    exit_code = 3

    def __init__(self, max_ms: float, fastest: str, fastest_ms: float, *, prompts: int = 1) -> None:
        self.max_ms, self.fastest, self.fastest_ms, self.prompts = max_ms, fastest, fastest_ms, prompts
        what = "nothing fits" if prompts == 1 else f"{prompts} prompts do not fit"
        need = f"needs about {fastest_ms:.0f} ms{'' if prompts == 1 else ' for them'}"
        super().__init__(f"{what} in {max_ms:.0f} ms: the fastest candidate, {fastest}, {need} (--or-fastest runs it anyway)")


class _FileError(CostrouteError):
    """An error about one file or directory: which, what is wrong with it, what to do."""

    def __init__(self, path: str | PathLike[str], problem: str, remedy: str) -> None:
        self.path, self.problem, self.remedy = fspath(path), problem, remedy
        super().__init__(f"{self.path}: {problem} ({remedy})")


class LabelError(_FileError):
    """Labels, or the prompts to label, cannot be used; remedy: in the text."""

    exit_code = 2


class BundleError(_FileError):
    """A bundle is missing, damaged, foreign or too new; remedy: copy, download or export it again."""

    exit_code = 4


class EngineError(_FileError):
    """An engine or the store is missing, stale, damaged or wrong; remedy: `costroute-rt build-engines`."""

    exit_code = 5


class StoreFullError(EngineError):
    """The disk that holds the store has no room; remedy: free space or move the store with COSTROUTE_HOME."""


class BackendError(CostrouteError):
    """What should run the engines is not what is there; remedy: install it, or ask for what there is."""

    exit_code = 6

    def __init__(self, asked: str, found: str, remedy: str) -> None:
        self.asked, self.found, self.remedy = asked, found, remedy
        super().__init__(f"asked for {asked}, found {found} ({remedy})")


class OutputError(CostrouteError):
    """A result cannot be written; remedy: choose another place."""

    exit_code = 7

    def __init__(self, path: str | PathLike[str], problem: str) -> None:
        self.path, self.problem = fspath(path), problem
        super().__init__(f"cannot write {self.path}: {problem}")


class CancelledError(CostrouteError):
    """The caller, a signal or a callback asked to stop."""

    exit_code = 130

    def __init__(self, problem: str = "cancelled") -> None:
        self.problem = problem
        super().__init__(problem)
