"""Answers for as long as the client is there: blocking calls that end when it leaves, and streams of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

T = TypeVar("T")
KEEP_ALIVE_S = 15.0
"""A stream that has nothing to say for so long sends a comment, so that nothing between takes it for dead."""


class ClientGoneError(Exception):
    """The client has left; nobody reads an answer."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves; raises ClientGoneError then. The body must have been read."""
    running = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        raise ClientGoneError
    finally:
        for each in (running, leaving):
            each.cancel()
        await asyncio.gather(running, leaving, return_exceptions=True)


async def answer_while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    return await while_connected(request.receive, work)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """An answer of server-sent events, which ends when its source does or the client leaves."""

    def __init__(self, source: AsyncGenerator[bytes, None], *, send_s: float) -> None:
        """send_s: time for the client to take what is sent."""
        self._source, self._send_s = source, send_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with suppress(ClientGoneError, TimeoutError):
            await while_connected(receive, self._send_all(send))
        with suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async with aclosing(with_keep_alive(self._source)) as parts:
            async for part in parts:
                async with asyncio.timeout(self._send_s):
                    await send({"type": "http.response.body", "body": part, "more_body": True})


async def with_keep_alive(source: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The parts of `source`, with comments where there are none for long; closes it at the end."""
    following: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(_next(source))
            done, _ = await asyncio.wait({following}, timeout=KEEP_ALIVE_S)
            if not done:
                yield b": still here\n\n"
                continue
            part, following = following.result(), None
            if part is None:
                return
            yield part
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await source.aclose()


async def _next(source: AsyncGenerator[bytes, None]) -> bytes | None:
    """The next part; None at the end."""
    return await anext(source, None)


def format_event(name: str | None, data: Mapping[str, Any], number: int | None = None) -> bytes:
    """One server-sent event."""
    lines = [f"id: {number}"] if number is not None else []
    lines += [f"event: {name}"] if name else []
    lines.append(f"data: {json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(',', ':'))}")
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")
