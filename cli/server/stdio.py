"""`serve --stdio`: JSON-RPC by lines over standard input and output, for a program that starts this one as its child."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from costroute_rt.cli.server.line_api import LineApi
from costroute_rt.cli.server.mcp import McpApi
from costroute_rt.cli.server.rpc import INVALID_REQUEST, Dispatcher
from costroute_rt.cli.server.service import Service

_MOST_CALLS = 64
"""At once; further lines wait."""
_MOST_LINES = 64
"""Written at once; whatever makes more waits."""
_CLOSE_S = 5.0


def take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for the lines alone: what libraries print goes to standard error instead."""
    sys.stdout.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    given = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return os.fdopen(given, "rb"), os.fdopen(output, "wb")


class Writer:
    """Writes lines in a thread of its own, in their order."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self.is_broken = False
        """Whether nobody reads any more."""
        self._thread = threading.Thread(target=self._write, name="costroute-rt lines", daemon=True)
        self._thread.start()

    async def send(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        while self._lines.qsize() >= _MOST_LINES and not self.is_broken:
            await asyncio.sleep(0.01)
        if not self.is_broken:
            self._lines.put(line)

    def close(self) -> None:
        """Write what is left, if somebody reads it soon."""
        self._lines.put(None)
        self._thread.join(_CLOSE_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._file.write(line)
                self._file.flush()
            except (OSError, ValueError):
                self.is_broken = True
                return


class Session:
    """One client over lines, until its end."""

    def __init__(self, service: Service, source: BinaryIO, target: BinaryIO) -> None:
        self._service, self._source = service, source
        self._most_bytes = service.settings.limits.body_bytes
        self._writer = Writer(target)
        mcp = McpApi(service, lambda: self._dispatcher)
        self._dispatcher = Dispatcher({**LineApi(service).methods, **mcp.methods}, self._writer.send)

    async def run(self) -> None:
        """Serve until the end of the input; then everything ends."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._lines: asyncio.Queue[tuple[bytes, float]] = asyncio.Queue()
        threading.Thread(target=self._read, args=(loop, ended), name="costroute-rt input", daemon=True).start()
        taking = asyncio.create_task(self._take())
        failing = asyncio.create_task(self._fail())
        ending = asyncio.create_task(ended.wait())
        await asyncio.wait({ending, failing}, return_when=asyncio.FIRST_COMPLETED)
        for task in (taking, failing, ending):
            task.cancel()
        await self._dispatcher.close()
        self._writer.close()

    def _read(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        """Read lines, in a thread; waits while many calls run."""
        try:
            while line := self._source.readline(self._most_bytes + 1):
                arrived_s = time.perf_counter()
                asyncio.run_coroutine_threadsafe(self._put(line, arrived_s), loop).result()
                while len(line) > self._most_bytes and not line.endswith(b"\n"):
                    line = self._source.readline(self._most_bytes)  # the rest of a line that is too long
        except (OSError, ValueError, RuntimeError):
            pass
        try:
            loop.call_soon_threadsafe(ended.set)
        except RuntimeError:  # it ended for another reason
            return

    async def _put(self, line: bytes, arrived_s: float) -> None:
        while self._dispatcher.running >= _MOST_CALLS:
            await asyncio.sleep(0.01)
        await self._lines.put((line, arrived_s))

    async def _take(self) -> None:
        while True:
            line, arrived_s = await self._lines.get()
            if len(line) > self._most_bytes:
                error = {"code": INVALID_REQUEST, "message": f"the line is longer than {self._most_bytes >> 20} MiB"}
                await self._writer.send({"jsonrpc": "2.0", "id": None, "error": error})
            elif line.strip():
                self._dispatcher.accept(line, arrived_s)

    async def _fail(self) -> None:
        """Returns when the runtime cannot be opened."""
        try:
            await self._service.opened()
        except Exception:  # it is kept as the service's failure
            return
        await asyncio.Event().wait()


def serve_lines(service: Service, source: BinaryIO, target: BinaryIO) -> None:
    """Serve one client until the end of its input."""

    async def run() -> None:
        await service.start()
        try:
            await Session(service, source, target).run()
        finally:
            await service.close()

    asyncio.run(run())
