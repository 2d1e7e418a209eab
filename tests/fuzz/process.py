"""Commands in processes of their own, in odd circumstances."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import ExitStack, suppress
from random import Random
from typing import Any

from tests.fuzz.case import Case, draw_environment, fifos
from tests.fuzz.command_line import changed_by, draw_command
from tests.fuzz.odd import show

LIMIT_S = 60.0
CLOSED = ("stdin closed", "stdout closed", "stderr closed", "stdout full", "stderr full", "reader of stdout gone", "all closed")


ENCODINGS: tuple[dict[str, str | None], ...] = (
    {},
    {"LC_ALL": "C"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1"},
)


def try_process(case: Case) -> None:
    """A real process: closed streams, other locales and folders, limits of the system, interrupts."""
    odd_paths = case.place.make_odd_paths()
    digests = [each.name for each in (case.place.root / "home/engines").iterdir()]
    arguments = [process_argument(each) for each in draw_command(case.random, odd_paths, digests)]
    changes = draw_environment(case.random, case.place)
    changes |= case.random.choice(ENCODINGS)
    trick, amount = draw_trick(case.random)
    case.note(f"process {show(arguments, 2000)} environment={show(changes)} {trick} {amount}")
    code, output = run_process(case, [sys.executable, "-m", "costroute_rt.cli", *arguments], changes, trick, amount)
    if code is None:
        case.problems.append(f"hangs: {output[-3000:]}")
    elif trick != "terminate" and (trick, code) != ("interrupt", -signal.SIGINT):  # the interpreter was interrupted before it started
        case.check_code(code, output)
    is_ours = "costroute_rt" in output  # otherwise the interpreter was interrupted before it came to us
    may_trace = bool(changes.get("COSTROUTE_TRACEBACK")) or (trick == "interrupt" and not is_ours)
    case.check_output(output, may_trace=may_trace)
    if trick != "terminate":
        case.problems += case.place.problems(case.template, may_change=changed_by(arguments))


def process_argument(text: str) -> str:
    """The text as a process can get it: without NUL, of limited length, and as bytes that are not UTF-8 where it cannot be encoded."""
    return text.replace("\0", "0").encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")[:100_000]


TRICKS: dict[str, tuple[int, ...]] = {
    "": (0,),
    **dict.fromkeys(CLOSED, (0,)),
    "cwd deleted": (0,),
    "files open at once": (5, 6, 8, 10, 12, 16, 24, 40),
    "bytes in a file": (0, 100, 1000, 50_000, 300_000),
    "umask": (0o777, 0o277, 0o077),
    "bytes of memory": tuple(megabytes << 20 for megabytes in (100, 200, 300, 400, 500, 700, 1000)),
    "interrupt": (20, 100, 200, 300, 400, 600, 800, 1000, 1300),
    "terminate": (100, 500, 1000),
    "terminal of columns": (0, 1, 2, 10, 80, 1000),
}
"""Odd circumstances, each with amounts: limits, or milliseconds until a signal."""


def draw_trick(random: Random) -> tuple[str, int]:
    trick = random.choice(list(TRICKS))
    return trick, random.choice(TRICKS[trick])


class Limits:
    """What the child process sets for itself before it becomes the command."""

    def __init__(self, trick: str, amount: int) -> None:
        self._trick, self._amount = trick, amount

    def __call__(self) -> None:
        limits = {
            "files open at once": resource.RLIMIT_NOFILE,
            "bytes in a file": resource.RLIMIT_FSIZE,
            "bytes of memory": resource.RLIMIT_AS,
        }
        if self._trick in limits:
            resource.setrlimit(limits[self._trick], (self._amount, self._amount))
        elif self._trick == "umask":
            os.umask(self._amount)
        elif self._trick.endswith(" closed"):
            numbers = {"stdin": (0,), "stdout": (1,), "stderr": (2,), "all": (0, 1, 2)}[self._trick.split()[0]]
            for number in numbers:
                os.close(number)


def run_process(case: Case, command: list[str], changes: dict[str, str | None], trick: str, amount: int) -> tuple[int | None, str]:
    """Exit code (None: it had to be killed) and what was printed."""
    cwd, log = case.place.root / "cwd", case.place.root / "tmp" / "output"
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **case.place.environment, **changes}
    kept = {name: value for name, value in environment.items() if value is not None}
    if trick == "cwd deleted":
        cwd = case.place.root / "odd" / "gone"
        cwd.mkdir()
        command = ["/bin/sh", "-c", 'rmdir ../gone; exec "$@"', "sh", *command]
    with ExitStack() as stack:
        file = stack.enter_context(open(log, "wb"))
        stack.enter_context(fifos(case.place))
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file, **odd_streams(stack, trick, amount, file)}
        process = subprocess.Popen(command, cwd=cwd, env=kept, preexec_fn=Limits(trick, amount), start_new_session=True, **streams)
        if trick in ("interrupt", "terminate"):
            time.sleep(amount / 1000)
            process.send_signal(signal.SIGINT if trick == "interrupt" else signal.SIGTERM)
        try:
            code: int | None = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, log.read_bytes().decode("utf-8", "replace") if log.exists() else ""


def odd_streams(stack: ExitStack, trick: str, amount: int, log: Any) -> dict[str, Any]:
    """Standard streams other than files: closed on the other side, full, or a terminal whose output goes to the log."""
    if trick.endswith("full"):
        return {trick.split()[0]: stack.enter_context(open("/dev/full", "wb"))}
    if trick == "reader of stdout gone":
        reader, writer = os.pipe()
        os.close(reader)
        stack.callback(os.close, writer)
        return {"stdout": writer}
    if not trick.startswith("terminal"):
        return {}
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, amount, 0, 0))
    reading = threading.Thread(target=copy_screen, args=(screen, log))
    reading.start()
    stack.callback(reading.join)
    stack.callback(os.close, terminal)
    return dict.fromkeys(("stdin", "stdout", "stderr"), terminal)


def copy_screen(screen: int, log: Any) -> None:
    """Keeps what is written to a terminal, until all who can write have closed it."""
    with suppress(OSError):
        while data := os.read(screen, 1 << 16):
            log.write(data)
    os.close(screen)
