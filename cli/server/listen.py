"""Listening: the socket, connections that are slow or stay silent, and how the server ends."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from costroute_rt.cli.server.app import ARRIVED, make_app
from costroute_rt.cli.server.service import Service
from costroute_rt.cli.server.settings import ServerSettings
from costroute_rt.error import ConfigError

_PARENT_S = 1.0
"""How often it is looked whether the parent process still runs."""
_SWITCH_S = 0.001
"""How long a thread may keep Python's lock while the event loop waits for it; the usual 5 ms, several times a request, delay refusals."""
_BACKLOG = 128
_REFUSED = 32
"""Connections beyond the limit that are still answered, with 503."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, and how clients get in."""

    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}"

    @property
    def link(self) -> str:
        """Opens the page in a browser."""
        return f"{self.url}/?token={self.token}"


class PatientProtocol(H11Protocol):
    """HTTP/1.1 connections, closed when the head of a request takes too long. Notes when the first byte of a request arrived."""

    header_s = 10.0
    _has_begun = False
    """Whether a part of a request has arrived."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting_for_head: asyncio.TimerHandle | None = None
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency + _REFUSED:
            transport.abort()
        else:
            self._await_head()

    def _await_head(self) -> None:
        self._stop_waiting()
        self._waiting_for_head = self.loop.call_later(self.header_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting_for_head is not None:
            self._waiting_for_head.cancel()
            self._waiting_for_head = None

    def _give_up(self) -> None:
        self._waiting_for_head = None
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._has_begun and (self.cycle is None or self.cycle.response_complete):
            self._note_arrival()
        self._has_begun = True
        super().data_received(data)

    def _note_arrival(self) -> None:
        self.app_state = {ARRIVED: time.perf_counter()}

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        self._has_begun = False
        self._note_arrival()  # of a request that came before this answer was complete
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """A server that, told to end, first finishes what it accepted; told again, it ends at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._is_ending = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for Ctrl-C and SIGTERM."""
        if self._is_ending:
            self.should_exit = self.force_exit = True
            return
        self.begin_to_end()

    def begin_to_end(self) -> None:
        """Finish what was accepted, then end. May be called from a signal handler and from any thread."""
        self._is_ending, loop = True, self._loop
        if loop is None:  # it has not begun
            self.should_exit = True
        else:
            loop.call_soon_threadsafe(self._start_draining)

    def _start_draining(self) -> None:
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        self._service.drain()
        await self._service.drained(self._service.settings.drain_s)
        await asyncio.sleep(0.2)  # those who wait for the last images are answered
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await self._service.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        await self._service.close()


def bind(settings: ServerSettings) -> socket.socket:
    """A socket that listens; raises ConfigError if the address cannot be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name != "nt":  # there it would let two servers share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        name = f"{settings.host}:{settings.port}"
        raise ConfigError("address", name, f"one that can be listened on ({error.strerror or error})") from error
    listener.set_inheritable(False)
    return listener


def make_server(service: Service) -> Server:
    """A server for the service; `run` with a socket that listens."""
    limits = service.settings.limits

    class Protocol(PatientProtocol):
        header_s = limits.header_s

    config = uvicorn.Config(
        make_app(service),
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=round(limits.header_s),
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=limits.head_bytes,
        backlog=_BACKLOG,
    )
    return Server(config, service)


async def watch_parent(process: int, end: Callable[[], object]) -> None:
    """Calls `end` when a process is gone."""
    while is_running(process):
        await asyncio.sleep(_PARENT_S)
    end()


def is_running(process: int) -> bool:
    """Whether a process exists; one that waits for its parent to notice its end does not count."""
    if os.name == "nt":
        return _is_running_on_windows(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _is_running_on_windows(process: int) -> bool:
    import ctypes

    query, still_active = 0x1000, 259
    kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009  it exists on Windows only
    handle = kernel.OpenProcess(query, False, process)
    if not handle:
        return False
    code = ctypes.c_ulong()
    kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return code.value == still_active


def serve_until_told(service: Service, listener: socket.socket, parent: int | None = None) -> None:
    """Serve until a signal, or the end of the process `parent`; ends also if the runtime cannot be opened."""
    server = make_server(service)
    sys.setswitchinterval(_SWITCH_S)

    async def run() -> None:
        watches = [asyncio.create_task(_end_if_it_fails(service, server))]
        if parent is not None:
            watches.append(asyncio.create_task(watch_parent(parent, server.begin_to_end)))
        try:
            await server.serve([listener])
        finally:
            for watch in watches:
                watch.cancel()

    asyncio.run(run())


async def _end_if_it_fails(service: Service, server: Server) -> None:
    await service.started.wait()
    try:
        await service.opened()
    except Exception:  # it is kept as the service's failure
        server.should_exit = True
