"""Every error costroute-rt raises on purpose: one root, one class per remedy.

CostrouteError            exit 1
├── ConfigError           exit 2    a value or option is wrong: change it
├── PromptError           exit 2    the prompt cannot be used: write another one
├── LabelError            exit 2    a table of labels or prompts cannot be used: correct it or label again
├── BudgetError           exit 3    nothing fits the latency budget: allow more time
├── BundleError           exit 4    a bundle is damaged or incompatible: get it again
├── EngineError           exit 5    an engine is missing, stale or damaged: build it again
│   └── StoreFullError    exit 5    no room to write an engine: free some
├── BackendError          exit 6    a backend or provider is missing: install it
├── OutputError           exit 7    a result cannot be written: choose another place
├── StateError            exit 8    the runtime is closed, or used where it cannot be: open one there
├── BusyError             exit 9    too many requests wait: try again later
└── CancelledError        exit 130  the request was cancelled

The text of an error says what failed, what was found, and the remedy in words. Code that shows it in another form (the command line
prints a command to run) uses its fields: `reason` and the other attributes. Errors can be pickled and copied.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from enum import Enum
from os import PathLike, fspath
from typing import Any, TypeVar

from costroute_rt.plain_text import one_line


class Reason(str, Enum):
    """The kind of problem, for code that handles an error."""

    MISSING = "missing"
    """The engine does not exist."""
    SIZE_MISSING = "size_missing"
    """No engine makes images of that size."""
    IMAGES_MISSING = "images_missing"
    """The engine that encodes initial images does not exist, or was not measured; builds leave it out unless asked for it."""
    DAMAGED = "damaged"
    """Files have changed since they were written or installed."""
    QUARANTINED = "quarantined"
    """The engine was wrong or slow and must not be used."""
    NOT_MEASURED = "not_measured"
    """The engine has no usable costs."""
    CANNOT_BUILD = "cannot_build"
    CANNOT_OPEN = "cannot_open"
    FAILED = "failed"
    """The engine failed while running."""
    CLOSED = "closed"
    NESTED = "nested"
    """A callback called the runtime that called it."""
    OTHER_PROCESS = "other_process"
    """The runtime was opened by another process, such as the parent of this one."""
    NO_MEMORY = "no_memory"
    """The device or the machine has no memory left for the engine."""
    TOO_LONG = "too_long"
    """The work on the engine was stopped at its time limit."""
    NO_PROCESS = "no_process"
    """The process of the background build cannot be started."""
    AMBIGUOUS = "ambiguous"
    """The name matches no stored engine, or several."""
    STORE = "store"
    """The store cannot be read or written."""
    PERMISSION = "permission"
    """This user must not read or write the store, or a part of it."""
    UNTRUSTED = "untrusted"
    """Others than this user and root can change the store, or a part of it, so it is not used."""
    IN_USE = "in_use"
    """Another process uses the engine, on a system that then lets nobody replace or remove it."""
    FULL = "full"
    """The disk has no room left."""
    EXISTS = "exists"
    """The target exists already."""
    FOREIGN = "foreign"
    """The target exists and was not made by costroute-rt."""
    ROUTER = "router"
    """The bundle has no usable router."""
    LABELS = "labels"
    """Labels are missing."""
    NOT_A_BUNDLE = "not_a_bundle"
    """The path holds something else than a bundle."""
    CHECKPOINT = "checkpoint"
    """The path holds, or names, a checkpoint, which has to be exported to a bundle first."""
    DRIVER = "driver"
    """A device or its driver is missing or does not work."""
    TOO_SLOW = "too_slow"
    """Even on an idle machine it needs more time."""
    QUEUE = "queue"
    """Other requests are ahead."""
    LOAD = "load"
    """Runs were slower lately than usual."""


_REMEDIES = {
    Reason.MISSING: "build the engines",
    Reason.SIZE_MISSING: "build engines for this size",
    Reason.IMAGES_MISSING: "build it: Runtime.open(build=True, init_images=True)",
    Reason.DAMAGED: "build the engine again",
    Reason.QUARANTINED: "force a build to try it again; otherwise it waits until something in its key changes",
    Reason.NOT_MEASURED: "profile the engines",
    Reason.CANNOT_BUILD: "build the engines again once that is solved, or use another backend",
    Reason.CANNOT_OPEN: "build the engine again",
    Reason.FAILED: "build the engine again",
    Reason.CLOSED: "open it again",
    Reason.NO_MEMORY: "free some of the device's memory, or use a smaller bundle or image size",
    Reason.TOO_LONG: "end other programs and try again; do not use a bundle of a source that you do not trust",
    Reason.NO_PROCESS: "build the engines first: Runtime.open(build=True)",
    Reason.AMBIGUOUS: "name one of the stored engines",
    Reason.STORE: "check who owns it, or set COSTROUTE_HOME to a directory of your own",
    Reason.PERMISSION: "ask its owner for access, or set COSTROUTE_HOME to a directory of your own",
    Reason.UNTRUSTED: "have its owner take the right to write from others (chmod go-w), or set COSTROUTE_HOME to a directory of your own",
    Reason.IN_USE: "end the programs that use it, then try again",
    Reason.FULL: "free some space, or set COSTROUTE_HOME to another disk",
}
"""Remedies of EngineErrors, in terms of the library."""

_Error = TypeVar("_Error", bound="CostrouteError")


class CostrouteError(Exception):
    """Root of the errors raised on purpose; anything else that escapes is a bug."""

    exit_code = 1
    reason: Reason | None = None

    def __str__(self) -> str:
        """One line that can be printed anywhere: names and texts in it may come from anybody's files."""
        return one_line(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: _portable(value) for name, value in self.__dict__.items()}
        return _restore, (type(self), tuple(map(_portable, self.args)), fields)

    def __copy__(self: _Error) -> _Error:
        return _restore(type(self), self.args, self.__dict__)


def _restore(kind: type[_Error], args: tuple[Any, ...], fields: dict[str, Any]) -> _Error:
    """An error with these fields, made without its constructor, because the constructor's arguments are no longer known."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


def _portable(value: Any) -> Any:
    """The value if it can be pickled and restored, else its text: an error must reach the process that waits for it."""
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # whatever the value's own methods raise
        return _show(value)
    return value


class ConfigError(CostrouteError):
    """A value or option is wrong; remedy: pass what was expected."""

    exit_code = 2

    def __init__(self, name: str, found: object, expected: str, *, reason: Reason | None = None) -> None:
        self.name, self.found, self.expected, self.reason = name, found, expected, reason
        super().__init__(f"{name} is {_show(found)}: expected {expected}")


class PromptError(CostrouteError):
    """The prompt cannot be used; remedy: write another one."""

    exit_code = 2

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class BudgetError(CostrouteError):
    """No candidate fits the latency budget; remedy: allow more time or ask for the fastest."""

    exit_code = 3

    def __init__(
        self,
        max_ms: float,
        fastest: str,
        fastest_ms: float,
        *,
        prompts: int = 1,
        reason: Reason = Reason.TOO_SLOW,
        queue_ms: float = 0.0,
        recent_factor: float = 1.0,
    ) -> None:
        """fastest_ms: the budget that the candidate `fastest` needs now for all prompts.

        reason: TOO_SLOW, QUEUE or LOAD. queue_ms: the part of fastest_ms that is spent waiting for other requests.
        recent_factor: how many times longer than usual the rest takes now.
        """
        self.max_ms, self.fastest, self.fastest_ms, self.prompts = max_ms, fastest, fastest_ms, prompts
        self.reason, self.queue_ms, self.recent_factor = reason, queue_ms, recent_factor
        what = "nothing fits" if prompts == 1 else f"{prompts} prompts do not fit"
        later = "" if reason is Reason.TOO_SLOW else "try again later, "
        super().__init__(
            f"{what} in {_ms(max_ms)}: the fastest candidate, {fastest}, {self._need()}; {later}allow more time or ask for the fastest"
        )

    def _need(self) -> str:
        """How long the fastest candidate takes, and what of it passes."""
        now, idle = f"needs about {_ms(self.fastest_ms)}{'' if self.prompts == 1 else ' for them'}", _ms(self.idle_ms)
        if self.reason is Reason.QUEUE:
            return f"{now} now, {_ms(self.queue_ms)} of it to wait for other requests"
        if self.reason is Reason.LOAD:
            return f"{now} now, {idle} when the machine is idle: recent runs were {self.recent_factor:.1f} times slower"
        return f"{now} even on an idle machine" if idle == _ms(self.fastest_ms) else f"{now} now, and {idle} even on an idle machine"

    @property
    def idle_ms(self) -> float:
        """The budget that would be enough on an idle machine."""
        return (self.fastest_ms - self.queue_ms) / self.recent_factor


def _ms(ms: float) -> str:
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.2g} ms"


class _FileError(CostrouteError):
    """An error about one file or directory, with its path, the problem and the remedy."""

    def __init__(self, path: str | PathLike[str] | None, problem: str, remedy: str, *, reason: Reason | None = None) -> None:
        """path: None if the object with the problem is not in a file yet."""
        self.path, self.problem, self.remedy, self.reason = _text(path), problem, remedy, reason
        super().__init__(f"{f'{self.path}: ' if self.path else ''}{problem}; {remedy}")


class LabelError(_FileError):
    """Labels, or the prompts to label, cannot be used; remedy: in the text."""

    exit_code = 2


class BundleError(_FileError):
    """A bundle is missing, damaged, incompatible or too new; remedy: copy, download or export it again."""

    exit_code = 4


class EngineError(CostrouteError):
    """An engine or the store is missing, stale, damaged or wrong; remedy: most often to build the engine again."""

    exit_code = 5
    reason: Reason

    def __init__(
        self,
        problem: str,
        *,
        reason: Reason,
        engine: str | None = None,
        path: str | PathLike[str] | None = None,
        setup: Mapping[str, str] | None = None,
        bundle: str | PathLike[str] | None = None,
    ) -> None:
        """engine: full name, family/component/graph, with @HEIGHTxWIDTH for one that is built for a single size.

        path: the file or directory concerned.
        setup: `backend`, `provider`, `precision` and `target` of the engine, and `threads` if they were chosen, as text.
        bundle: directory of the bundle that the engine belongs to.
        """
        self.problem, self.reason, self.engine, self.path, self.bundle = problem, reason, engine, _text(path), _text(bundle)
        self.setup = None if setup is None else dict(setup)
        where = f"{engine} ({self.path})" if engine and self.path else engine or self.path
        super().__init__(f"{f'{where}: ' if where else ''}{problem}; {self.remedy}")

    @property
    def remedy(self) -> str:
        """How to fix the problem, in words."""
        return _REMEDIES[self.reason]

    def located(
        self: _Located,
        *,
        engine: str | None = None,
        path: str | PathLike[str] | None = None,
        setup: Mapping[str, str] | None = None,
        bundle: str | PathLike[str] | None = None,
    ) -> _Located:
        """The same error, with the fields that it lacks filled in by a caller that knows them."""
        return type(self)(
            self.problem,
            reason=self.reason,
            engine=self.engine or engine,
            path=self.path or path,
            setup={**(setup or {}), **(self.setup or {})} or None,
            bundle=self.bundle or bundle,
        )


_Located = TypeVar("_Located", bound=EngineError)


class StoreFullError(EngineError):
    """The disk that holds the store has no room; remedy: free space or move the store with COSTROUTE_HOME."""


class BackendError(CostrouteError):
    """The requested backend, provider or device is missing or does not work; remedy: install it, or choose another one."""

    exit_code = 6

    def __init__(
        self,
        asked: str,
        found: str,
        remedy: str,
        install: Sequence[str] = (),
        *,
        uninstall: Sequence[str] = (),
        instead: Mapping[str, str] | None = None,
        reason: Reason | None = None,
    ) -> None:
        """install: requirements to install, such as costroute-rt[openvino].

        uninstall: packages to uninstall first.
        instead: options that work without an installation, such as {"provider": "cpu"}.
        """
        self.asked, self.found, self.remedy, self.reason = asked, found, remedy, reason
        self.install, self.uninstall, self.instead = tuple(install), tuple(uninstall), dict(instead or {})
        super().__init__(f"asked for {asked}, found {found}; {remedy}")


class OutputError(CostrouteError):
    """A result cannot be written; remedy: choose another place."""

    exit_code = 7

    def __init__(self, path: str | PathLike[str], problem: str, *, reason: Reason | None = None) -> None:
        self.path, self.problem, self.reason = fspath(path), problem, reason
        super().__init__(f"cannot write {self.path}: {problem}")


class StateError(CostrouteError):
    """The runtime cannot take this call: it is closed, called from its own callback, or of another process; remedy: in the text."""

    exit_code = 8

    def __init__(self, problem: str, remedy: str, *, reason: Reason | None = None) -> None:
        self.problem, self.remedy, self.reason = problem, remedy, reason
        super().__init__(f"{problem}; {remedy}")


def make_closed_error() -> StateError:
    """The error about a runtime that was closed."""
    return StateError("the runtime is closed", "open another one: Runtime.open(...)", reason=Reason.CLOSED)


class BusyError(CostrouteError):
    """As many requests wait as may; remedy: try again later, or open the runtime with a larger `max_waiting`."""

    exit_code = 9

    def __init__(self, waiting: int, max_waiting: int, retry_after_ms: float) -> None:
        """waiting: requests that wait besides the one that runs. retry_after_ms: expected time until the next of them is done."""
        self.waiting, self.max_waiting, self.retry_after_ms = waiting, max_waiting, retry_after_ms
        super().__init__(f"the queue is full: {max_waiting} requests may wait; try again in about {retry_after_ms:.0f} ms")


class CancelledError(CostrouteError):
    """The caller, a signal or a callback asked to stop."""

    exit_code = 130

    def __init__(self, problem: str = "cancelled") -> None:
        self.problem = problem
        super().__init__(problem)


def _show(value: object) -> str:
    """The value as Python shows it, or its type if it cannot be shown: nested too deeply, a number of too many digits."""
    try:
        return repr(value)
    except Exception:  # whatever the value's own method raises
        return f"a value of type {type(value).__name__} that cannot be shown"


def _text(path: str | PathLike[str] | None) -> str | None:
    return None if path is None else fspath(path)
