"""Building in another process, at low priority, while this one works: `python -m costroute_rt.engines.building.background JOB`.

The process gets its job as JSON and answers with one JSON object a line: {"graph": ..., "state": "building" | "ready" | "rejected",
"reason": ...}, and at the end {"state": "done"}, when all that is ready may be used, or {"state": "failed", "reason": ...}. It ends
when its standard input does, so that it never outlives who started it.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.building.build import build_each, open_engine
from costroute_rt.engines.building.gate import Race, run_race
from costroute_rt.engines.building.profile import example_call
from costroute_rt.engines.building.setup import Setup
from costroute_rt.engines.building.specification import router_graphs, row_graphs, sized_spec
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.cost import identity, write_costs
from costroute_rt.engines.store.store import Store
from costroute_rt.error import CostrouteError, EngineError, Reason, StoreFullError

COMMAND = ("-m", "costroute_rt.engines.building.background")
"""Arguments of the interpreter, before the job."""
NICENESS = 19
"""Of the building process, where there is such a thing; on Windows its priority is below normal."""
_END_S = 5.0

Event = dict[str, str]


class Builder:
    """The building process, started by `start_builder`."""

    def __init__(self, process: subprocess.Popen[str], errors: Any, store: Store) -> None:
        self._process, self._errors, self._store = process, errors, store
        self._is_closed = False

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def events(self) -> Iterator[Event]:
        """What it tells, until it ends; last comes `done` or `failed`, whatever became of it."""
        last = ""
        for line in self._process.stdout or ():
            if line.endswith("\n"):  # else it was killed in the middle of it
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
        """Close what it was read through; after the last event."""
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _describe_end(self) -> str:
        code = self._process.returncode
        if code < 0:
            names = {each.value: each.name for each in signal.Signals}
            return f"the building process was killed ({names.get(-code, -code)})"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the building process ended with exit code {code}{': ' + lines[-1] if lines else ''}"


def start_builder(bundle: Bundle, store: Store, names: Sequence[str], setup: Setup, replaced: Setup) -> Builder:
    """Start building the engines called `names` of `setup`, each to be proved against that of `replaced`.

    Raises EngineError where there is no interpreter to start, or the system does not start it.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        problem = "this program cannot start an interpreter to build with"
        raise EngineError(problem, reason=Reason.NO_PROCESS, path=sys.executable or None)
    job = {
        "bundle": str(bundle.root),
        "store": str(store.root),
        "names": list(names),
        "setup": setup.to_json(),
        "replaced": replaced.to_json(),
    }
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW
    errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by release)
    try:
        process = subprocess.Popen(
            [sys.executable, *COMMAND, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # as multiprocessing does: what we found, it finds
            creationflags=flags,
        )
    except OSError as error:
        errors.close()
        problem = f"the building process cannot be started: {error.strerror}"
        raise EngineError(problem, reason=Reason.NO_PROCESS, path=sys.executable) from error
    return Builder(process, errors, store)


def build_job(job: dict[str, Any]) -> Iterator[Event]:
    """Build, check and prove one engine after another, then all that are ready together.

    An engine that cannot be built is told, and the others go on. Where pictures are slower with those that are ready, these are rejected.
    """
    bundle, store = Bundle.open(job["bundle"], verify=False), Store(Path(job["store"]))
    setup, replaced = Setup(**job["setup"]), Setup(**job["replaced"])
    ready = []
    for name in job["names"]:
        yield {"graph": name, "state": "building"}
        try:
            (report,) = build_each(bundle, store, [name], setup, measure=False)
            reason = report.quarantined or prove_faster(bundle, store, name, setup, replaced)
        except StoreFullError:
            raise
        except EngineError as error:
            reason = str(error)
        if reason is None:
            ready.append(name)
        yield {"graph": name, "state": "rejected", "reason": reason} if reason else {"graph": name, "state": "ready"}
    reason = prove_pictures(bundle, store, ready, setup, replaced) if ready else None
    if reason is not None:
        yield from ({"graph": name, "state": "rejected", "reason": reason} for name in ready)


def prove_faster(bundle: Bundle, store: Store, name: str, setup: Setup, replaced: Setup) -> str | None:
    """Time an engine in turns with the one it is to replace, unless its costs are known; returns why it must not replace it.

    Its costs become those of the other times how much longer it takes: the machine is busy, and times of their own would say how busy.
    That it is slower stands beside them: it is as good as any where nobody asks for the faster one.
    """
    if setup.is_ready(bundle, store, [name]):
        return setup.rejection(bundle, store, name, replaced)
    old, old_load_s = _open(bundle, store, name, replaced)
    with old:
        new, new_load_s = _open(bundle, store, name, setup)
        with new:
            race = run_race(_call(bundle, name, new, setup), _call(bundle, name, old, replaced))
    stored = store.find(setup.key(bundle, name))
    if stored is None:
        return "somebody removed it"
    cost = replaced.cost(bundle, store, name).scaled(name, stored.digest, race.ratio, new_load_s / old_load_s, race.is_lost)
    with store.lock(stored.digest):
        write_costs(stored.path, identity(stored.key, stored.sha256), cost)
    return setup.rejection(bundle, store, name, replaced)


def prove_pictures(bundle: Bundle, store: Store, names: Sequence[str], setup: Setup, replaced: Setup) -> str | None:
    """Time the calls of whole pictures in turns, with the engines called `names` among the others and without; returns why to go without.

    The threads of two libraries stand in each other's way, so that pictures may be slower where each engine is faster by itself. What is
    found is kept with the costs of these engines, by which `Setup.rejection` and `Setup.is_proved` go.
    """
    for candidate, order in pictures(bundle).items():
        mine = [name for name in dict.fromkeys(order) if name in names]
        if not mine:
            continue
        race = _race_pictures(bundle, store, order, mine, setup, replaced)
        if race.is_lost:
            times = f"{min(race.engine_ms):.2f} ms, without {min(race.other_ms):.2f} ms"
            reason = f"pictures are slower with it among the engines of {replaced} that stay: by {candidate} {times}"
            for name in names:
                _note_pictures(bundle, store, name, setup, replaced, reason)
            return reason
    for name in names:
        _note_pictures(bundle, store, name, setup, replaced, None)
    return None


def _race_pictures(bundle: Bundle, store: Store, order: Sequence[str], mine: Sequence[str], setup: Setup, replaced: Setup) -> Race:
    """The calls in `order`, those of `mine` by engines of `setup`, in turns with the same calls all by engines of `replaced`."""
    with ExitStack() as stack:

        def opened(name: str, how: Setup) -> Callable[[], object]:
            return _call(bundle, name, stack.enter_context(open_engine(bundle, store, name, how)), how)

        old = {name: opened(name, replaced) for name in dict.fromkeys(order)}
        new = old | {name: opened(name, setup) for name in mine}
        return run_race(lambda: [new[name]() for name in order], lambda: [old[name]() for name in order])


def pictures(bundle: Bundle) -> dict[str, list[str]]:
    """The calls of a picture, by its candidate: the fastest one of each choice of engines."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in sorted(bundle.pool, key=lambda row: int(row["num_inference_steps"])):
        found.setdefault(tuple(row_graphs(bundle, row)), dict(row))
    calls = {}
    for graphs, row in found.items():
        *before, step, decode = graphs
        calls[str(row["name"])] = [*router_graphs(bundle), *before, *[step] * row["num_inference_steps"], decode]
    return calls


def _note_pictures(bundle: Bundle, store: Store, name: str, setup: Setup, replaced: Setup, slower: str | None) -> None:
    stored = store.peek(setup.key(bundle, name))
    if stored is not None:
        against, is_slower = replaced.cost(bundle, store, name).digest, slower is not None
        cost = setup.cost(bundle, store, name)
        cost = replace(cost, relative_to=against, is_slower=is_slower, slower_pictures=slower, is_proved=not is_slower)
        with store.lock(stored.digest):
            write_costs(stored.path, identity(stored.key, stored.sha256), cost)


def _open(bundle: Bundle, store: Store, name: str, setup: Setup) -> tuple[Engine, float]:
    started = time.perf_counter()
    engine = open_engine(bundle, store, name, setup)
    return engine, time.perf_counter() - started


def _call(bundle: Bundle, name: str, engine: Engine, setup: Setup) -> Callable[[], object]:
    return example_call(engine, bundle, name, sized_spec(bundle, name, setup.spec(bundle)))


def main() -> int:
    """Do the job in the command line, telling on standard output how it goes."""
    if hasattr(os, "nice"):
        os.nice(max(0, NICENESS - os.nice(0)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it reaches the starter too, which ends us
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as told:
        os.dup2(2, 1)  # what a library prints is no answer of ours

        def tell(event: Event) -> None:
            told.write(json.dumps(event) + "\n")
            told.flush()

        threading.Thread(target=_end_with_starter, daemon=True).start()
        try:
            for event in build_job(json.loads(sys.argv[1])):
                tell(event)
        except CostrouteError as error:
            tell({"state": "failed", "reason": str(error)})
            return error.exit_code
        tell({"state": "done"})
    return 0


def _end_with_starter() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
