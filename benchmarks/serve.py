"""What the server adds to the engines' own time, and whether it keeps its word at twice what the machine can do.

The server runs as a process of its own, as users start it. One client asks for images one after another. Then many clients ask at random
times, together twice as often as the fastest candidate could serve, each with a budget; some of them leave without waiting for the answer.
Use an idle machine: the clients are part of the load.

    python -m benchmarks.serve
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, median_figure, run_scenario
from costroute_rt.engines.machine.memory import resident_bytes

PROMPT = "a red house by a lake at sunset"
STARTS, IMAGES, WARM_UP, CLIENTS, LOAD_S = 7, 200, 20, 64, 300.0
QUICK_IMAGES, QUICK_WARM_UP, QUICK_CLIENTS, QUICK_LOAD_S = 3, 1, 4, 2.0
OVERLOAD = 2.0
"""Requests relative to what the fastest candidate could serve."""
BUDGET = 4.0
"""Relative to the fastest candidate's 95th percentile."""
LEAVING = 0.02
"""Share of the clients' requests that they leave at once."""
START_TARGET, OWN_TARGET, REFUSAL_TARGET = Target(high=2.0), Target(high=3.0), Target(high=20.0)
KEPT_TARGET, GROWTH_TARGET, NO_ERRORS = Target(low=0.97), Target(high=20.0), Target(high=0)
_TIMEOUT_S = 60.0
_REFUSED = (422, 429)


@dataclass
class Tally:
    """What became of the requests under load. Several threads add to it, one at a time."""

    kept: list[bool] = field(default_factory=list)
    """Whether each image was there in time."""
    latency_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    """How long each refusal took."""
    outcomes: Counter[str] = field(default_factory=Counter)
    left: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Client:
    """One client with a connection that it keeps."""

    def __init__(self, address: dict[str, Any]) -> None:
        self._address = address
        self._connection = http.client.HTTPConnection("127.0.0.1", address["port"], timeout=_TIMEOUT_S)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any, float]:
        """Status, answer and milliseconds of one request."""
        headers = {"Authorization": f"Bearer {self._address['token']}", "Content-Type": "application/json"}
        started_s = time.perf_counter()
        for last in (False, True):
            try:
                self._connection.request(method, path, None if body is None else json.dumps(body), headers)
                answer = self._connection.getresponse()
                data = answer.read()
                break
            except (http.client.RemoteDisconnected, ConnectionError):  # the server closes connections that were silent
                self._connection.close()
                if last:
                    raise
        return answer.status, json.loads(data), (time.perf_counter() - started_s) * 1000

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def leave(self, path: str, body: dict[str, Any]) -> None:
        """Ask and close the connection at once."""
        headers = {"Authorization": f"Bearer {self._address['token']}", "Content-Type": "application/json"}
        self._connection.close()
        self._connection.request("POST", path, json.dumps(body), headers)
        self._connection.close()


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("serve", __doc__ or "")
    parser.add_argument("--seconds", type=float, help=f"length of the load (default: {LOAD_S:g})")
    args = parser.parse_args(argv)
    return run_benchmark("serve", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    images, warm_up = (QUICK_IMAGES, QUICK_WARM_UP) if args.quick else (IMAGES, WARM_UP)
    clients, load_s = (QUICK_CLIENTS, QUICK_LOAD_S) if args.quick else (CLIENTS, args.seconds or LOAD_S)
    starts = QUICK_IMAGES if args.quick else STARTS
    start = Scenario(name="start", repeats=starts, targets={"until the page is there": START_TARGET})
    alone = Scenario(name="one client", warm_up=warm_up, repeats=images, targets={"own part, median": OWN_TARGET})
    targets = {"refusal, p95": REFUSAL_TARGET, "kept": KEPT_TARGET, "memory growth": GROWTH_TARGET, "errors": NO_ERRORS}
    load = Scenario(name=f"{clients} clients", settings={"clients": clients, "seconds": load_s}, warm_up=warm_up, targets=targets)
    return [
        run_scenario(start, partial(measure_start, args)),
        run_scenario(alone, partial(measure_alone, args)),
        run_scenario(load, partial(measure_load, args)),
    ]


def measure_start(args: argparse.Namespace, scenario: Scenario) -> Measurement:
    """From the start of the command until its link opens the page, and until requests are served; engines are built before."""
    with server(args):
        pass
    page_s, ready_s = list[float](), list[float]()
    for _ in range(scenario.repeats):
        began_s = time.perf_counter()
        with server(args, began_s=began_s, page_s=page_s):
            ready_s.append(time.perf_counter() - began_s)
    return Measurement(
        figures=[median_figure("until the page is there", page_s, "s"), median_figure("until requests are served", ready_s, "s")]
    )


def measure_alone(args: argparse.Namespace, scenario: Scenario) -> Measurement:
    """The same image again and again, by the fastest candidate."""
    with server(args) as (_, address), Client(address) as client:
        body = {"prompt": PROMPT, "seed": 7, "model": find_fastest(client)[0]}
        answers = [client.ask("POST", "/v1/images/generations", body) for _ in range(scenario.warm_up + scenario.repeats)]
    measured = answers[scenario.warm_up :]
    timings = [answer["costroute"]["timings"] for _, answer, _ in measured]
    engines_ms = [each["total_ms"] - each["caller_ms"] for each in timings]  # the caller's time is that of the server until it asks
    pixels_ms = [answer["costroute"]["elapsed_ms"] for _, answer, _ in measured]
    whole_ms = [ms for *_, ms in measured]
    own_ms = np.subtract(pixels_ms, engines_ms)
    return Measurement(
        figures=[
            median_figure("engines", engines_ms, "ms"),
            Figure(name="own part, median", value=float(np.median(own_ms)), unit="ms"),
            Figure(name="own part, p95", value=float(np.percentile(own_ms, 95)), unit="ms"),
            Figure(name="own part, p99", value=float(np.percentile(own_ms, 99)), unit="ms"),
            median_figure("file and answer", list(np.subtract(whole_ms, pixels_ms)), "ms"),
            Figure(name="requests a second", value=1000 * len(whole_ms) / sum(whole_ms), unit="count"),
        ]
    )


def measure_load(args: argparse.Namespace, scenario: Scenario) -> Measurement:
    """Many clients for a while, and the server's memory before and after."""
    tally, settings = Tally(), scenario.settings
    with server(args) as (process, address), Client(address) as client:
        name, fastest_ms = find_fastest(client)
        max_ms = BUDGET * fastest_ms
        for _ in range(max(1, scenario.warm_up)):
            client.ask("POST", "/v1/images/generations", {"prompt": PROMPT, "model": name})
        log(f"  budget {max_ms:.0f} ms, fastest {name} {fastest_ms:.0f} ms")
        pause_s = settings["clients"] * fastest_ms / 1000 / OVERLOAD
        before = memory_of(process, client, address, max_ms, pause_s, settings, Tally(), share=0.1)
        after = memory_of(process, client, address, max_ms, pause_s, settings, tally)
        is_idle = wait_until_idle(client)
    served, refused = len(tally.kept), len(tally.refused_ms)
    errors = sum(count for outcome, count in tally.outcomes.items() if outcome not in ("200", *map(str, _REFUSED)))
    return Measurement(
        figures=[
            Figure(name="requests a second", value=(served + refused) / settings["seconds"], unit="count"),
            Figure(name="images a second", value=served / settings["seconds"], unit="count"),
            Figure(name="kept", value=float(np.mean(tally.kept)) if served else 0.0, unit="share"),
            Figure(name="refused", value=refused / max(1, served + refused), unit="share"),
            Figure(name="refusal, p95", value=percentile(tally.refused_ms, 95), unit="ms"),
            *(Figure(name=f"image, p{share}", value=percentile(tally.latency_ms, share), unit="ms") for share in (50, 95, 99)),
            Figure(name="budget", value=max_ms, unit="ms"),
            Figure(name="errors", value=errors + (not is_idle), unit="count"),
            Figure(name="left by their clients", value=tally.left, unit="count"),
            Figure(name="memory growth", value=(after - before) / 1e6, unit="MB"),
        ],
        notes={"outcomes": ", ".join(f"{outcome} {count}" for outcome, count in tally.outcomes.most_common())},
    )


def percentile(values: Sequence[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else 0.0


def memory_of(
    process: subprocess.Popen[str],
    client: Client,
    address: dict[str, Any],
    max_ms: float,
    pause_s: float,
    settings: Any,
    tally: Tally,
    *,
    share: float = 1.0,
) -> int:
    """The server's memory after a phase of load. share: of the whole length."""
    until_s = time.monotonic() + share * settings["seconds"]
    ask_all = [
        threading.Thread(target=ask_until, args=(until_s, address, max_ms, pause_s, tally, seed)) for seed in range(settings["clients"])
    ]
    for each in ask_all:
        each.start()
    for each in ask_all:
        each.join()
    wait_until_idle(client)
    return resident_bytes(Path(f"/proc/{process.pid}/statm")) or 0


def ask_until(until_s: float, address: dict[str, Any], max_ms: float, pause_s: float, tally: Tally, seed: int) -> None:
    """One client that asks at random times."""
    chance, body = random.Random(seed), {"prompt": PROMPT, "max_ms": max_ms}
    time.sleep(chance.random() * pause_s)
    with Client(address) as client:
        while time.monotonic() < until_s:
            if chance.random() < LEAVING:
                client.leave("/v1/images/generations", body)
                with tally.lock:
                    tally.left += 1
            else:
                note(tally, *ask_once(client, body))
            time.sleep(max(0.0, min(chance.expovariate(1 / pause_s), until_s - time.monotonic())))


def ask_once(client: Client, body: dict[str, Any]) -> tuple[str, Any, float]:
    try:
        status, answer, ms = client.ask("POST", "/v1/images/generations", body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return type(error).__name__, None, 0.0
    return str(status), answer, ms


def note(tally: Tally, outcome: str, answer: Any, ms: float) -> None:
    with tally.lock:
        tally.outcomes[outcome] += 1
        if outcome == "200":
            tally.kept.append(answer["costroute"]["met"])
            tally.latency_ms.append(ms)
        elif outcome in map(str, _REFUSED):
            tally.refused_ms.append(ms)


def find_fastest(client: Client) -> tuple[str, float]:
    """Name of the fastest candidate and its predicted 95th percentile in milliseconds."""
    _, route, _ = client.ask("POST", "/v1/route", {"prompt": PROMPT})
    found = min(route["options"], key=lambda option: option["p95_ms"])
    return found["candidate"], found["p95_ms"]


def wait_until_idle(client: Client) -> bool:
    """Whether nothing runs any more, some seconds after the last request."""
    for _ in range(100):
        _, jobs, _ = client.ask("GET", "/v1/jobs")
        if not any(job["state"] in ("queued", "running") for job in jobs["data"]):
            return True
        time.sleep(0.1)
    return False


def open_page(address: dict[str, Any]) -> None:
    """Ask for the page as a browser does; raises OSError if it is not there."""
    connection = http.client.HTTPConnection("127.0.0.1", address["port"], timeout=_TIMEOUT_S)
    with closing(connection):
        connection.request("GET", "/", headers={"Authorization": f"Bearer {address['token']}"})
        if connection.getresponse().status != 200:
            raise ConnectionError("the page is not there")


@contextmanager
def server(
    args: argparse.Namespace, *, began_s: float = 0.0, page_s: list[float] | None = None
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A server with every engine loaded, and its address. page_s: gets the time from `began_s` until the page is there."""
    command = [sys.executable, "-m", "costroute_rt.cli", "serve", "--port", "0", "--warm"]
    command += [] if args.bundle is None else ["--bundle", str(args.bundle)]
    environment = {**os.environ, **({} if args.home is None else {"COSTROUTE_HOME": str(args.home)})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())
        if page_s is not None:
            open_page(address)
            page_s.append(time.perf_counter() - began_s)
        with Client(address) as client:
            while client.ask("GET", "/readyz")[0] != 200:
                time.sleep(0.1)
        yield process, address
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=_TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
