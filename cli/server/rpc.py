"""JSON-RPC 2.0: messages, their errors, and the calls that run at the same time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from costroute_rt.cli.server.problem import Problem, problem_of

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, REFUSED = -32700, -32600, -32601, -32602, -32000
_MOST_SHOWN = 64
Id = str | int | float | None
Params = Mapping[str, Any]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Method = Callable[["Call"], Awaitable[Any]]


class RpcError(Exception):
    """An answer other than a result."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data

    def to_json(self) -> dict[str, Any]:
        found = {"code": self.code, "message": self.message}
        return found if self.data is None else {**found, "data": self.data}


class Call:
    """One call of a method, as that sees it."""

    def __init__(self, params: Params, arrived_s: float, send: Send) -> None:
        self.params, self.arrived_s, self._send = params, arrived_s, send

    async def notify(self, method: str, params: Params) -> None:
        """Tell the client something before the result."""
        await self._send({"jsonrpc": "2.0", "method": method, "params": params})


class Dispatcher:
    """Runs calls as they come, each in a task of its own, and sends their results as they are there."""

    def __init__(self, methods: Mapping[str, Method], send: Send) -> None:
        self._methods, self._send = methods, send
        self._running: dict[Id, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        return len(self._tasks)

    def accept(self, line: bytes, arrived_s: float) -> None:
        """Begin what one line asks for."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._start(self._answer(None, error=RpcError(PARSE_ERROR, f"the line is not JSON: {error}"[:200])))
            return
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
            if not (isinstance(message, dict) and ("result" in message or "error" in message)):  # an answer to what nobody asked
                self._start(self._answer(None, error=RpcError(INVALID_REQUEST, "it is no JSON-RPC 2.0 request")))
            return
        number = message.get("id")
        if isinstance(number, bool) or not isinstance(number, str | int | float | None):
            self._start(self._answer(None, error=RpcError(INVALID_REQUEST, "id must be text, a number or null")))
            return
        task = self._start(self._run(message, "id" in message, number, arrived_s))
        if number is not None:
            self._running[number] = task
            task.add_done_callback(lambda done: self._running.pop(number, None) if self._running.get(number) is done else None)

    def cancel(self, number: Id) -> bool:
        """End a call that runs; returns False if there is none of that id."""
        task = self._running.get(number)
        return task is not None and task.cancel()

    async def close(self) -> None:
        """End all calls."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, message: Mapping[str, Any], wants_answer: bool, number: Id, arrived_s: float) -> None:
        try:
            result = await self._call(message["method"], message.get("params", {}), arrived_s)
        except asyncio.CancelledError:
            error = RpcError(REFUSED, "the request was cancelled", {"code": "cancelled"})
            if wants_answer:
                await asyncio.shield(self._answer(number, error=error))
            return
        except RpcError as found:
            if wants_answer:
                await self._answer(number, error=found)
            return
        if wants_answer:
            await self._answer(number, result=result)

    async def _call(self, name: str, params: Any, arrived_s: float) -> Any:
        method = self._methods.get(name)
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, f"there is no method {name[:_MOST_SHOWN]!r}")
        if not isinstance(params, dict):
            raise RpcError(INVALID_PARAMS, "params must be an object")
        try:
            return await method(Call(params, arrived_s, self._send))
        except RpcError:
            raise
        except Exception as error:
            raise of_problem(problem_of(error)) from None

    async def _answer(self, number: Id, *, result: Any = None, error: RpcError | None = None) -> None:
        found = {"result": result} if error is None else {"error": error.to_json()}
        await self._send({"jsonrpc": "2.0", "id": number, **found})


def of_problem(problem: Problem) -> RpcError:
    """A problem as an error of JSON-RPC, with all that HTTP clients learn in its data."""
    code = INVALID_PARAMS if problem.status == 400 else REFUSED
    return RpcError(code, problem.message, {"status": problem.status, **problem.to_json()["error"]})
