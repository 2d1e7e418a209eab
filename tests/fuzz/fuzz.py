"""Runs cases in worker processes until the time is over, and collects what went wrong."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 20.0
"""Of one case, several commands at most."""
ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Failure:
    """A case that went wrong, and how to repeat it."""

    seed: int
    number: int
    kind: str
    notes: list[str]
    problems: list[str]

    def describe(self) -> str:
        repeat = f"python -m tests.fuzz --seed {self.seed} --only {self.number}"
        return "\n".join(
            [f"case {self.number} ({self.kind}), repeated by: {repeat}", *(f"  {note}" for note in self.notes), *self.problems]
        )


@dataclass(slots=True)
class Summary:
    """What was tried."""

    seed: int
    cases: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    """Commands and calls of the interface, by kind of case."""
    seconds: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def describe(self) -> str:
        rows = [f"{kind}: {self.cases[kind]} cases, {self.calls[kind]} calls, {self.seconds[kind]:.0f} s" for kind in sorted(self.cases)]
        total = f"seed {self.seed}: {sum(self.cases.values())} cases, {sum(self.calls.values())} calls, {len(self.failures)} failures"
        return "\n".join([total, *rows])


class Worker:
    """A worker process and what it reported last."""

    def __init__(self, seed: int, first: int, template: Path, work: Path) -> None:
        reader, writer = os.pipe()
        arguments = ["--seed", seed, "--first", first, "--step", 1, "--pipe", writer, "--template", template, "--work", work]
        self.errors = work / "errors.txt"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)]),
            "ORT_DISABLE_TELEMETRY": "1",
        }
        with open(self.errors, "wb") as errors:
            command = [sys.executable, "-m", "tests.fuzz.worker", *map(str, arguments)]
            self.process = subprocess.Popen(
                command,
                pass_fds=[writer],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env=environment,
                cwd=work,
                start_new_session=True,
            )
        os.close(writer)
        self._reader, self._rest = reader, b""

    def read(self, timeout_s: float) -> list[dict[str, Any]] | None:
        """What was reported since; None if the process has ended."""
        ready, _, _ = select.select([self._reader], [], [], timeout_s)
        if not ready:
            return []
        data = os.read(self._reader, 1 << 20)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def stop(self, number: int = signal.SIGKILL) -> int:
        """Ends the process and its children; returns its exit code."""
        try:
            os.killpg(self.process.pid, number)
            self.process.wait(5)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        os.close(self._reader)
        return code

    def last_errors(self) -> str:
        return self.errors.read_bytes().decode("utf-8", "replace")[-4000:]


def fuzz(
    template: Path,
    work: Path,
    *,
    seed: int,
    seconds: float,
    first: int = 0,
    most: int | None = None,
    on_failure: Callable[[Failure], object] = lambda _: None,
) -> Summary:
    """Runs the cases `first`, `first` + 1, ... for so many seconds, or `most` of them."""
    summary, number, end = Summary(seed), first, time.monotonic() + seconds
    while time.monotonic() < end and (most is None or number < first + most):
        number = _run_worker(summary, template, work, number, end, None if most is None else first + most, on_failure)
    return summary


def _run_worker(
    summary: Summary, template: Path, work: Path, number: int, end: float, last: int | None, on_failure: Callable[[Failure], object]
) -> int:
    """Runs one worker until it ends, hangs, or the time is over; returns the number of the next case."""
    worker = Worker(summary.seed, number, template, work)
    kind, notes, since, is_running = "start", list[str](), time.monotonic(), False

    def fail(problems: list[str]) -> None:
        failure = Failure(summary.seed, number, kind, notes, problems)
        summary.failures.append(failure)
        on_failure(failure)

    while True:
        reports = worker.read(0.5)
        if reports is None:
            code = worker.stop()
            fail([f"the process ended with {code}: {worker.last_errors()}"])
            return number + 1
        for report in reports:
            since = time.monotonic()
            if "note" in report:
                notes.append(report["note"])
                summary.calls[kind] += report["note"].startswith(("costroute-rt", "process")) or kind == "api"
            elif "start" in report:
                number, kind, notes, is_running = report["start"], report["kind"], [], True
            else:
                summary.cases[kind] += 1
                summary.seconds[kind] += report["s"]
                if report["problems"]:
                    fail(report["problems"])
                number, is_running = number + 1, False
                if last is not None and number >= last:
                    worker.stop()
                    return number
        limit_s = 3 * LIMIT_S + 20 if kind == "process" else LIMIT_S
        if time.monotonic() - since > limit_s:
            worker.stop(signal.SIGABRT)  # prints where it is
            fail([f"hangs for {limit_s:.0f} s: {worker.last_errors()}"])
            return number + 1
        if time.monotonic() > end and not is_running:
            worker.stop()
            return number
