"""One case of the fuzz test: what is tried, and what is wrong with what happened."""

from __future__ import annotations

import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from click.testing import CliRunner, Result

from costroute_rt.cli.main import cli
from tests.fuzz.odd import odd_text, show
from tests.fuzz.place import FifoWriter, Place, forget_temporary_folder

EXIT_CODES = {*range(10), 130}
"""Those that `costroute-rt --help` documents."""
_NOTE = re.compile(r"^Traceback \(most recent call last\)", re.MULTILINE)


@dataclass(slots=True)
class Case:
    """What is tried; the notes say it, for whoever repeats it by hand."""

    random: Random
    template: Path
    place: Place
    announce: Callable[[str], None]
    """Called with each note before the step is done, because the process may not survive it."""
    problems: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    """Exit codes of the commands that ended."""

    def note(self, text: str) -> None:
        self.announce(text)

    def check_output(self, output: str, *, may_trace: bool = False) -> None:
        """may_trace: whether the case asked for tracebacks."""
        if "(a bug" in output or (not may_trace and _NOTE.search(output)):
            self.problems.append(f"ends in a bug: {output[-3000:]}")

    def check_code(self, code: int, output: str) -> None:
        self.codes.append(code)
        if code not in EXIT_CODES:
            self.problems.append(f"exit code {code}: {output[-3000:]}")


def draw_environment(random: Random, place: Place) -> dict[str, str | None]:
    """Changes to the usual variables, most often none."""
    odd = str(place.root / "odd")
    names = ("folder", "text", "dangling", "loop", "null", "missing/x", "fifo", "x" * 300, "🏠")
    paths = ("", " ", "relative", "~", "~nobody-here", "/proc/x", *(f"{odd}/{name}" for name in names))
    choices: dict[str, tuple[str | None, ...]] = {
        "COSTROUTE_HOME": (None, *paths),
        "COSTROUTE_EXTRA_STORES": (str(place.root / "home"), f"{place.root}/home{os.pathsep}{odd}/missing", os.pathsep * 3, *paths),
        "HOME": (None, *paths),
        "XDG_CACHE_HOME": paths,
        "TMPDIR": paths,
        "LANG": ("C", "tr_TR.UTF-8", "nonsense", ""),
        "LC_ALL": ("C", "POSIX", "de_DE.ISO-8859-1", "\udce9"),
        "COSTROUTE_TRACEBACK": ("1", "0", ""),
        "COLUMNS": ("0", "1", "-1", "nan", "1000000000", "20", ""),
        "LINES": ("0", "x"),
        "NO_COLOR": ("1",),
        "FORCE_COLOR": ("1",),
        "TERM": ("dumb", "", "xterm"),
        "OMP_NUM_THREADS": ("0", "-1", "x", "1000"),
        "PYTHONWARNINGS": ("default",),
    }  # fmt: skip
    chosen = random.sample(list(choices), random.choice((0, 0, 0, 1, 1, 2, 3)))
    return {name: random.choice(choices[name]) for name in chosen}


class Interrupt:
    """Ctrl-C after some time: raises KeyboardInterrupt once in the main thread."""

    def __init__(self, after_s: float | None) -> None:
        self._after_s = after_s

    def __enter__(self) -> None:
        if self._after_s is not None:
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, self._after_s)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def invoke(
    case: Case, arguments: list[str], environment: dict[str, str | None] | None = None, *, interrupt_s: float | None = None
) -> Result | None:
    """Run a command in this process and check how it ends; None if an interrupt came after it had ended."""
    changed = {**case.place.environment, **(environment or {})}
    stdin = case.random.choice(("", "a lake\n", "a lake\na house\n", odd_text(case.random)))
    case.note(
        f"costroute-rt {show(arguments, 2000)} stdin={show(stdin)} environment={show(environment or {})}"
        + (f" interrupted after {interrupt_s:.3f} s" if interrupt_s else "")
    )
    forget_temporary_folder()
    try:
        with (
            in_folder(case.place.root / "cwd"),
            fifos(case.place),
            set_variables({"COSTROUTE_TRACEBACK": "1", **changed}),
            Interrupt(interrupt_s),
        ):
            done = CliRunner().invoke(cli, arguments, input=stdin.encode("utf-8", "surrogatepass"), prog_name="costroute-rt")
    except KeyboardInterrupt:
        return None
    case.check_code(done.exit_code, done.output)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        case.problems.append("escaped: " + "".join(traceback.format_exception(done.exception))[-3000:])
    case.check_output(done.output, may_trace=True)
    return done


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def fifos(place: Place) -> Iterator[None]:
    with ExitStack() as stack:
        if (place.root / "odd" / "fifo").exists():
            stack.enter_context(FifoWriter(place.root / "odd" / "fifo", b"a lake\na house\n"))
        yield


@contextmanager
def set_variables(changes: dict[str, str | None]) -> Iterator[None]:
    """Environment variables for a while; those that this system cannot hold are left out."""
    before = dict(os.environ)
    try:
        for name, value in changes.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                with suppress(UnicodeEncodeError, ValueError):
                    os.environ[name] = value
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
