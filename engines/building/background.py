"""Building in another process, at low priority, while this one makes images.

The process gets its job as one line of JSON on its standard input and answers with one JSON object a line: {"engine": name,
"state": "building" | "ready" | "rejected", "share": ..., "reason": ...}, and at the end {"state": "done"}, when all that is ready may be
used, or {"state": "failed", "reason": ...}. It ends when its standard input does, so that it never outlives who started it. It imports
nothing from the working directory.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_each, open_engine
from costroute_rt.engines.building.gate import Race, run_race
from costroute_rt.engines.building.lookup import engine_key, find_rejection, is_ready, read_cost, write_cost
from costroute_rt.engines.building.profile import example_call
from costroute_rt.engines.building.progress import OpenEvent, Tracker
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import CostrouteError, EngineError, Reason, StoreFullError

_START = "import sys; sys.path[:] = [p for p in sys.path if p]; from costroute_rt.engines.building.background import main; sys.exit(main())"
COMMAND = ("-c", _START)
"""Arguments of the interpreter. Before Python 3.11, which has PYTHONSAFEPATH, `-c` puts the working directory before all modules."""
NICENESS = 19
"""Of the building process on POSIX; on Windows its priority is below normal."""
_END_S = 5.0
_PIECE_BYTES = 1 << 16
_LEAST_SHARE = 0.01
"""Difference between two reported shares of a build."""

Event = dict[str, Any]
Images = Mapping[str, Sequence[tuple[str, int]]]
"""By candidate: the engines called for one image, in order, and how often."""


class Builder:
    """The building process, started by `start_builder`."""

    def __init__(self, process: subprocess.Popen[str], errors: Any, store: Store, job: dict[str, Any]) -> None:
        self._process, self._errors, self._store, self.job = process, errors, store, job
        self._is_closed = False

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def events(self) -> Iterator[Event]:
        """What it reports, until it ends; last comes `done` or `failed`, even where it was killed."""
        last = ""
        for line in self._process.stdout or ():
            if line.endswith("\n"):  # else it was killed while writing
                event: Event = json.loads(line)
                last = event["state"]
                yield event
        self._process.wait()
        if last not in ("done", "failed"):
            self._store.sweep()
            yield {"state": "failed", "reason": "closed" if self._is_closed else self._describe_end()}

    def close(self) -> None:
        """End the process, if it has not ended."""
        self._is_closed = True
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def release(self) -> None:
        """Close its pipes, after the last event."""
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with suppress(OSError):  # what it did not read of its job, because it ended
                    stream.close()

    def _describe_end(self) -> str:
        code = self._process.returncode
        if code < 0:
            names = {each.value: each.name for each in signal.Signals}
            return f"the building process was killed ({names.get(-code, -code)})"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the building process ended with exit code {code}{': ' + lines[-1] if lines else ''}"


def start_builder(bundle: Bundle, store: Store, names: Sequence[str], setup: Setup, replaced: Setup, images: Images) -> Builder:
    """Start building the engines called `names` of `setup`; each is raced against the same engine of `replaced`.

    images: the calls of whole images, with which all of them are raced together.
    Raises EngineError where there is no interpreter to start, or the system does not start it.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        problem = "this program cannot start an interpreter to build with"
        raise EngineError(problem, reason=Reason.NO_PROCESS, path=sys.executable or None)
    job = {
        "bundle": str(bundle.root),
        "alias": bundle.alias,
        "store": [os.path.abspath(root) for root in (store.root, *store.extras)],
        "names": list(names),
        "setup": setup.to_json(),
        "replaced": replaced.to_json(),
        "images": {candidate: [list(call) for call in calls] for candidate, calls in images.items()},
    }
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW
    errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by release)
    try:
        process = subprocess.Popen(
            [sys.executable, *COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(search_path())},
            cwd=os.path.dirname(sys.executable),  # Windows looks for libraries in the working directory too
            creationflags=flags,
        )
    except OSError as error:
        errors.close()
        problem = f"the building process cannot be started: {error.strerror}"
        raise EngineError(problem, reason=Reason.NO_PROCESS, path=sys.executable) from error
    with suppress(OSError):  # it has ended already, which its events report
        assert process.stdin is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
    return Builder(process, errors, store, job)


def search_path() -> list[str]:
    """Where the building process finds the modules of this one: `sys.path` without the working directory, in which anything may lie.

    Where this package itself is in the working directory, that comes last, after the standard library.
    """
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it was removed
        here = None
    absolute = [os.path.abspath(path) for path in sys.path if path]
    kept = [path for path in absolute if os.path.realpath(path) != here]
    own = os.path.dirname(os.path.dirname(os.path.abspath(str(sys.modules[__name__.partition(".")[0]].__file__))))
    return kept if os.path.realpath(own) != here else [*kept, own]


def build_job(job: dict[str, Any], report_share: Callable[[Event], object] = lambda _: None) -> Iterator[Event]:
    """Build, check and prove one engine after another, then all that are ready together.

    An engine that cannot be built is reported, and the others go on. If images are slower with those that are ready, these are rejected.

    report_share: called with an event whenever more of an engine is built, if its backend reports that.
    """
    root, *extras = map(Path, job["store"])
    bundle = replace(Bundle.open(job["bundle"], verify=False), alias=job.get("alias"))
    store = Store(root, tuple(extras))
    setup, replaced = Setup(**job["setup"]), Setup(**job["replaced"])
    ready = []
    for name in job["names"]:
        yield {"engine": name, "state": "building"}
        try:
            (report,) = build_each(bundle, store, [name], setup, measure=False, tracker=_share_tracker(name, report_share))
            reason = report.quarantined or prove_faster(bundle, store, name, setup, replaced)
        except StoreFullError:
            raise
        except EngineError as error:
            reason = str(error)
        if reason is None:
            ready.append(name)
        yield {"engine": name, "state": "rejected", "reason": reason} if reason else {"engine": name, "state": "ready"}
    reason = prove_images(bundle, store, ready, setup, replaced, job["images"]) if ready else None
    if reason is not None:
        yield from ({"engine": name, "state": "rejected", "reason": reason} for name in ready)


def _share_tracker(name: str, report: Callable[[Event], object]) -> Tracker:
    """Passes on each percent of an engine's build."""
    reported = 0.0

    def progress(event: OpenEvent) -> None:
        nonlocal reported
        if event.share is not None and event.share - reported >= _LEAST_SHARE:
            reported = event.share
            report({"engine": name, "state": "building", "share": round(event.share, 3)})

    return Tracker(progress)


def prove_faster(bundle: Bundle, store: Store, name: str, setup: Setup, replaced: Setup) -> str | None:
    """Time an engine in turns with the one it is to replace, unless its costs are known; returns why it must not replace it.

    Its costs are those of the other engine, under the condition in which that was measured, times the ratio of the race: the machine is
    busy, so that plain times would be too long.
    A lost race is recorded with them; the engine may still be used on its own.
    """
    if is_ready(bundle, store, [name], setup):
        return find_rejection(bundle, store, name, setup, replaced)
    old, old_load_s = _open(bundle, store, name, replaced)
    with old:
        new, new_load_s = _open(bundle, store, name, setup)
        with new:
            race = run_race(example_call(new, bundle, name, setup), example_call(old, bundle, name, replaced))
    stored = store.find(engine_key(bundle, name, setup))
    if stored is None:
        return "somebody removed it"
    known = read_cost(bundle, store, name, replaced)
    cost = known.scaled(name, stored.digest, race.ratio, new_load_s / old_load_s, race.is_lost)
    threads = setup.condition().threads
    if threads is None or cost.condition.threads is None:  # one of them does not run on the processor
        cost = replace(cost, condition=replace(cost.condition, threads=threads))
    write_cost(store, stored, cost)
    return find_rejection(bundle, store, name, setup, replaced)


def prove_images(bundle: Bundle, store: Store, names: Sequence[str], setup: Setup, replaced: Setup, images: Images) -> str | None:
    """Time the calls of whole images in turns, with the engines called `names` among the others and without; returns why to go without.

    The threads of two libraries get in each other's way, so that images may be slower where each engine is faster by itself. The result
    is kept with the costs of these engines, where `find_rejection` and `may_replace` read it.
    """
    for candidate, calls in images.items():
        mine = [name for name in dict.fromkeys(name for name, _ in calls) if name in names]
        if not mine:
            continue
        race = _race_images(bundle, store, calls, mine, setup, replaced)
        if race.is_lost:
            times = f"{min(race.engine_ms):.2f} ms, without {min(race.other_ms):.2f} ms"
            reason = f"images are slower with it among the engines of {replaced} that stay: by {candidate} {times}"
            for name in names:
                _note_images(bundle, store, name, setup, replaced, reason)
            return reason
    for name in names:
        _note_images(bundle, store, name, setup, replaced, None)
    return None


def _race_images(
    bundle: Bundle, store: Store, calls: Sequence[tuple[str, int]], mine: Sequence[str], setup: Setup, replaced: Setup
) -> Race:
    """One image's calls, those of `mine` by engines of `setup`, in turns with the same calls all by engines of `replaced`."""
    with ExitStack() as stack:

        def opened(name: str, how: Setup) -> Callable[[], object]:
            return example_call(stack.enter_context(open_engine(bundle, store, name, how)), bundle, name, how)

        old = {name: opened(name, replaced) for name in dict.fromkeys(name for name, _ in calls)}
        new = old | {name: opened(name, setup) for name in mine}
        order = [name for name, times in calls for _ in range(times)]
        return run_race(lambda: [new[name]() for name in order], lambda: [old[name]() for name in order])


def _note_images(bundle: Bundle, store: Store, name: str, setup: Setup, replaced: Setup, slower: str | None) -> None:
    stored = store.peek(engine_key(bundle, name, setup))
    if stored is not None:
        against, is_slower = read_cost(bundle, store, name, replaced).digest, slower is not None
        cost = read_cost(bundle, store, name, setup)
        cost = replace(cost, relative_to=against, is_slower=is_slower, slower_images=slower, is_proved=not is_slower)
        write_cost(store, stored, cost)


def _open(bundle: Bundle, store: Store, name: str, setup: Setup) -> tuple[Engine, float]:
    started = time.perf_counter()
    engine = open_engine(bundle, store, name, setup)
    return engine, time.perf_counter() - started


def main() -> int:
    """Do the job in the first line of standard input, reporting on standard output how it goes."""
    if hasattr(os, "nice"):
        os.nice(max(0, NICENESS - os.nice(0)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the parent too, which ends this process
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # keeps output of libraries out of the answers

        def report(event: Event) -> None:
            answers.write(json.dumps(event) + "\n")
            answers.flush()

        job = json.loads(_read_line())
        threading.Thread(target=_end_with_starter, daemon=True).start()
        try:
            for event in build_job(job, report):
                report(event)
        except CostrouteError as error:
            report({"state": "failed", "reason": str(error)})
            return error.exit_code
        report({"state": "done"})
    return 0


def _read_line() -> bytes:
    """The first line of standard input; the process ends with it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        if not (part := os.read(0, _PIECE_BYTES)):
            os._exit(1)
        line += part
    return bytes(line)


def _end_with_starter() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
