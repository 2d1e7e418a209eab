"""Servers on a socket of their own, over fake engines whose calls a test can hold, and a client that sends what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason='tests of the server: pip install "costroute-rt[serve]"')
pytest.importorskip("uvicorn", reason='tests of the server: pip install "costroute-rt[serve]"')

from costroute_rt.cli.server.listen import Server, make_server
from costroute_rt.cli.server.service import Service
from costroute_rt.cli.server.settings import ServerSettings
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.runtime import Runtime
from tests.runtime.fakes import FakeDevice, open_fake_runtime

TOKEN = "a-token-for-tests-only"
PATIENCE_S = 60.0
"""After so long a test fails instead of waiting on."""


@dataclass
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.json()["error"])


@dataclass
class Running:
    """A server that runs in a thread of its own."""

    server: Server
    service: Service
    port: int
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})
    """Sent with each request, unless it brings its own of that name."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own; a body that is not bytes is sent as JSON."""
        sent = {**self.headers, **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body, sent = json.dumps(body).encode(), {"Content-Type": "application/json", **sent}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, **fields: Any) -> Answer:
        return self.ask("POST", path, fields)

    def events(self, path: str, headers: dict[str, str] | None = None) -> Iterator[tuple[str, dict[str, Any], int]]:
        """Name, data and number of each event of a stream, until it ends."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path, headers={**self.headers, **(headers or {})})
            yield from read_events(connection.getresponse())
        finally:
            connection.close()

    def open_socket(self) -> socket.socket:
        """A connection for what no HTTP client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def wait_for(self, holds: Callable[[], object], what: str = "it") -> None:
        """Wait until something holds."""
        wait_until(holds, what)

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True


def wait_until(holds: Callable[[], object], what: str = "it") -> None:
    """Wait until something holds."""
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, f"{what} did not happen"
        threading.Event().wait(0.005)


def read_events(lines: Any) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Server-sent events in the lines of an answer."""
    name, number, data = "", 0, ""
    for line in lines:
        text = line.decode().rstrip("\n")
        key, _, value = text.partition(": ")
        if key == "event":
            name = value
        elif key == "id":
            number = int(value)
        elif key == "data":
            data = value
        elif not text and data:
            yield name, json.loads(data), number
            name, data = "", ""


_gates = list["Gate"]()


class Gate:
    """Holds calls of one engine until it is opened, at the latest at the end of the test."""

    def __init__(self, device: FakeDevice, engine: str, *, after: int = 0) -> None:
        """after: calls that pass first."""
        self._engine, self._after = engine, after
        self._open = threading.Event()
        self.reached = threading.Event()
        device.on_call.append(self._wait)
        _gates.append(self)

    def _wait(self, name: str) -> None:
        if not name.endswith(self._engine):
            return
        if self._after:
            self._after -= 1
            return
        self.reached.set()
        assert self._open.wait(PATIENCE_S)

    def open(self) -> None:
        self._open.set()


Serve = Callable[..., Running]


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Bundle:
    """The tiny bundle, opened."""
    return Bundle.open(tiny_bundle)


@pytest.fixture
def device(bundle: Bundle) -> FakeDevice:
    """A runtime whose calls take exactly the profiled time: turbo@1 takes 34 ms, turbo@2 54 ms."""
    return open_fake_runtime(bundle)


@pytest.fixture
def serve(device: FakeDevice, caplog: pytest.LogCaptureFixture) -> Iterator[Serve]:
    """Starts servers over `device`, and ends them; what they log as an error fails the test."""
    started = list[tuple[Running, threading.Thread]]()

    def start(runtime: Runtime | None = None, *, opener: Any = None, **options: Any) -> Running:
        def open_runtime(note: Any, cancel: Any) -> Runtime:
            return runtime or device.runtime

        settings = replace(ServerSettings(token=TOKEN, port=0, drain_s=5.0), **options)
        device.runtime._max_waiting = settings.limits.waiting
        listener = socket.create_server(("127.0.0.1", 0))
        service = Service(opener or open_runtime, settings)
        server = make_server(service)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        running = Running(server, service, listener.getsockname()[1])
        started.append((running, thread))
        running.wait_for(lambda: server.started, "start")
        if opener is None:
            running.wait_for(lambda: service.runtime, "opening")
        return running

    yield start
    for gate in _gates:
        gate.open()
    _gates.clear()
    for running, thread in started:
        running.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    with contextlib.suppress(Exception):
        device.runtime.close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
def server(serve: Serve) -> Running:
    """A server with the usual settings."""
    return serve()
