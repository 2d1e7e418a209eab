"""Runs cases in worker processes until the time is over, and collects what went wrong."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 20.0
"""Of one case, several commands at most."""
ROOT = Path(__file__).parents[2]
_IN_LIBRARY = re.compile(r"^Current thread [^\n]*\n  File \"[^\"\n]*/site-packages/(onnxruntime|openvino)/", re.MULTILINE)
"""A crash in native code of such a library, as `faulthandler` prints it."""


@dataclass(slots=True)
class Failure:
    """A case that went wrong, and how to repeat it."""

    seed: int
    number: int
    kind: str
    notes: list[str]
    problems: list[str]
    wanted: str | None = None
    """The kind, if it was not drawn."""

    def describe(self) -> str:
        repeat = f"python -m tests.fuzz --seed {self.seed} --only {self.number}{f' --kind {self.wanted}' if self.wanted else ''}"
        return "\n".join(
            [f"case {self.number} ({self.kind}), repeated by: {repeat}", *(f"  {note}" for note in self.notes), *self.problems]
        )


@dataclass(slots=True)
class Summary:
    """What was tried."""

    seed: int
    kind: str | None = None
    """The only kind; None means that each case draws one."""
    cases: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    """Commands and calls of the interface, by kind of case."""
    seconds: Counter[str] = field(default_factory=Counter)
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often commands ended with each exit code, by kind of case."""
    failures: list[Failure] = field(default_factory=list)
    crashes: list[Failure] = field(default_factory=list)
    """Of inference libraries, at damaged graphs whose hashes agree with the damage; they are counted, and are no failures of ours."""

    def describe(self) -> str:
        rows = [
            f"{kind}: {self.cases[kind]} cases, {self.calls[kind]} calls, {self.seconds[kind]:.0f} s{self._codes_of(kind)}"
            for kind in sorted(self.cases)
        ]
        total = f"seed {self.seed}: {sum(self.cases.values())} cases, {sum(self.calls.values())} calls, {len(self.failures)} failures"
        total += f", {len(self.crashes)} crashes of inference libraries at damaged graphs" if self.crashes else ""
        return "\n".join([total, *rows])

    def _codes_of(self, kind: str) -> str:
        found = [f"{code}: {times}" for (each, code), times in sorted(self.codes.items()) if each == kind]
        return f", exit codes {', '.join(found)}" if found else ""


class Worker:
    """A worker process and what it reported last."""

    def __init__(self, seed: int, first: int, kind: str | None, template: Path, work: Path) -> None:
        reader, writer = os.pipe()
        arguments = ["--seed", seed, "--first", first, "--pipe", writer, "--template", template, "--work", work]
        arguments += [] if kind is None else ["--kind", kind]
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
        self._reader, self._rest = os.fdopen(reader, "rb", buffering=0), b""

    def read(self, timeout_s: float) -> list[dict[str, Any]] | None:
        """What was reported since; None if the process has ended."""
        ready, _, _ = select.select([self._reader], [], [], timeout_s)
        if not ready:
            return []
        data = self._reader.read(1 << 20)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def stop(self, number: int = signal.SIGKILL) -> int:
        """Ends the process and its children, if they have not ended; returns its exit code."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self.process.pid, number)
                self.process.wait(5)
            self._reader.close()
            if self.process.returncode is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def last_errors(self) -> str:
        text = self.errors.read_bytes().decode("utf-8", "replace")
        return text[text.rfind("Fatal Python error") :][:4000] if "Fatal Python error" in text else text[-4000:]


def fuzz(
    summary: Summary,
    template: Path,
    work: Path,
    *,
    seconds: float,
    first: int = 0,
    most: int | None = None,
    on_failure: Callable[[Failure], object] = lambda _: None,
) -> None:
    """Runs the cases `first`, `first` + 1, ... of the summary's seed for so many seconds, or `most` of them."""
    number, end = first, time.monotonic() + seconds
    while time.monotonic() < end and (most is None or number < first + most):
        number = _run_worker(summary, template, work, number, end, None if most is None else first + most, on_failure)


def _run_worker(
    summary: Summary, template: Path, work: Path, number: int, end: float, last: int | None, on_failure: Callable[[Failure], object]
) -> int:
    """Runs one worker until it ends, hangs, or the time is over; returns the number of the next case."""
    worker = Worker(summary.seed, number, summary.kind, template, work)
    try:
        return _follow(worker, summary, number, end, last, on_failure)
    finally:
        worker.stop()


def _follow(worker: Worker, summary: Summary, number: int, end: float, last: int | None, on_failure: Callable[[Failure], object]) -> int:
    """Collects what the worker reports."""
    kind, notes, since, is_running = "start", list[str](), time.monotonic(), False

    def fail(problems: list[str]) -> None:
        failure = Failure(summary.seed, number, kind, notes, problems, summary.kind)
        summary.failures.append(failure)
        on_failure(failure)

    while True:
        reports = worker.read(0.5)
        if reports is None:
            code, errors = worker.stop(), worker.last_errors()
            if kind in ("graphs", "bundle") and _IN_LIBRARY.search(errors):
                summary.cases[kind] += 1
                summary.crashes.append(Failure(summary.seed, number, kind, notes, [errors], summary.kind))
            else:
                fail([f"the process ended with {code}: {errors}"])
            return number + 1
        for report in reports:
            since = time.monotonic()
            if "note" in report:
                notes.append(report["note"])
                summary.calls[kind] += report["note"].startswith(("costroute-rt", "process")) or kind in ("api", "reading")
            elif "start" in report:
                number, kind, notes, is_running = report["start"], report["kind"], [], True
            else:
                summary.cases[kind] += 1
                summary.seconds[kind] += report["s"]
                summary.codes.update((kind, code) for code in report["codes"])
                if report["problems"]:
                    fail(report["problems"])
                number, is_running = number + 1, False
                if last is not None and number >= last:
                    return number
        limit_s = 3 * LIMIT_S + 20 if kind == "process" else LIMIT_S
        if time.monotonic() - since > limit_s:
            worker.stop(signal.SIGABRT)  # prints where it is
            fail([f"hangs for {limit_s:.0f} s: {worker.last_errors()}"])
            return number + 1
        if time.monotonic() > end and not is_running:
            return number
