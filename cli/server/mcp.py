"""The Model Context Protocol over the same lines: one tool, which makes an image within a budget."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from costroute_rt.cli.server.asking import read_order
from costroute_rt.cli.server.field import Fields
from costroute_rt.cli.server.problem import problem_of
from costroute_rt.cli.server.rpc import INVALID_PARAMS, Call, Dispatcher, Method, RpcError
from costroute_rt.cli.server.service import Service
from costroute_rt.cli.server.work import Work
from costroute_rt.version import read_version

if TYPE_CHECKING:
    from collections.abc import Callable

MODERN = ("2026-07-28",)
"""Versions of the protocol without a handshake: each request names its own in `_meta`, and `server/discover` lists what is supported."""
VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Those that begin with `initialize`, the newest first."""
UNSUPPORTED_VERSION = -32022
_KEYS = "io.modelcontextprotocol/"
_COMPLETE = {"resultType": "complete"}
"""In every result since 2026-07-28; earlier clients ignore it, and how long an answer may be kept."""
_KEPT = {"ttlMs": 3_600_000, "cacheScope": "public"}
_CAPABILITIES = {"tools": {"listChanged": False}}
_INSTRUCTIONS = "Makes images on this machine, each within the milliseconds that max_ms allows."
TOOL = "generate_image"
_TEXT = {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {**_TEXT, "description": "What the image shows, in English."},
        "max_ms": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "Milliseconds that it may take; without it the best model is used.",
        },
        "negative_prompt": {**_TEXT, "description": "What to keep out of the image."},
        "candidate": {**_TEXT, "description": "Name of the only model to use, instead of a choice by the budget."},
        "seed": {"type": "integer", "minimum": 0, "description": "The same seed gives the same image."},
        "count": {"type": "integer", "minimum": 1, "maximum": 10},
        "height": {"type": "integer", "minimum": 1},
        "width": {"type": "integer", "minimum": 1},
        "or_fastest": {"type": "boolean", "description": "If nothing is fast enough, use the fastest model all the same."},
    },
    "required": ["prompt"],
    "additionalProperties": False,
}
_ABOUT = {
    "name": TOOL,
    "title": "Generate an image",
    "description": "Makes an image of a prompt on this machine, with the model that is expected to serve it best within max_ms.",
    "inputSchema": SCHEMA,
    "annotations": {"readOnlyHint": True, "openWorldHint": False},
}


class McpApi:
    """The methods of an MCP server."""

    def __init__(self, service: Service, find_dispatcher: Callable[[], Dispatcher]) -> None:
        self._service, self._find_dispatcher = service, find_dispatcher
        self.methods: dict[str, Method] = {
            "initialize": self.initialize,
            "server/discover": self.discover,
            "ping": self.ping,
            "tools/list": self.list_tools,
            "tools/call": self.call_tool,
            "notifications/initialized": self.ping,
            "notifications/cancelled": self.cancel,
        }

    async def initialize(self, call: Call) -> dict[str, Any]:
        wanted = call.params.get("protocolVersion")
        return {
            "protocolVersion": wanted if wanted in VERSIONS else VERSIONS[0],
            "capabilities": _CAPABILITIES,
            "serverInfo": _describe_server(),
            "instructions": _INSTRUCTIONS,
        }

    async def discover(self, call: Call) -> dict[str, Any]:
        """What there is, for clients that send no `initialize`."""
        _check_version(call)
        return {
            "supportedVersions": [*MODERN, *VERSIONS],
            "capabilities": _CAPABILITIES,
            "instructions": _INSTRUCTIONS,
            "_meta": {f"{_KEYS}serverInfo": _describe_server()},
            **_COMPLETE,
            **_KEPT,
        }

    async def ping(self, call: Call) -> dict[str, Any]:
        return {}

    async def list_tools(self, call: Call) -> dict[str, Any]:
        _check_version(call)
        return {"tools": [_ABOUT], **_COMPLETE, **_KEPT}

    async def cancel(self, call: Call) -> None:
        self._find_dispatcher().cancel(call.params.get("requestId"))

    async def call_tool(self, call: Call) -> dict[str, Any]:
        """The tool's answer; what goes wrong with the image is a part of it, which the model that called can read."""
        _check_version(call)
        if call.params.get("name") != TOOL:
            raise RpcError(INVALID_PARAMS, f"there is no tool {str(call.params.get('name'))[:64]!r}")
        arguments, meta = call.params.get("arguments") or {}, call.params.get("_meta") or {}
        if not isinstance(arguments, dict) or not isinstance(meta, dict):
            raise RpcError(INVALID_PARAMS, "arguments must be an object")
        try:
            fields = Fields(arguments).only(tuple(SCHEMA["properties"]))
            order = await read_order(self._service, fields, arrived_s=call.arrived_s, owner="mcp")
            work = await self._service.submit(order)
        except Exception as error:
            return _failed(problem_of(error).message)
        try:
            await self._follow(call, work, meta.get("progressToken"))
            if work.problem is not None:
                return _failed(work.problem.message)
            return await self._service.in_thread(lambda: _content(work))
        finally:
            self._service.leave(work)

    @staticmethod
    async def _follow(call: Call, work: Work, token: object) -> None:
        """Returns at its end; reports progress meanwhile, if the client wants that."""
        if token is None:
            await work.ended()
            return
        async with aclosing(work.follow()) as events:
            async for event in events:
                if event.name == "step":
                    data = event.data
                    message = f"{data['ms_to_go'] / 1000:.1f} s to go"
                    progress = {"progressToken": token, "progress": data["step"], "total": data["steps"], "message": message}
                    await call.notify("notifications/progress", progress)


def _content(work: Work) -> dict[str, Any]:
    """Text and images; with --save-to also the paths, as some hosts mangle images."""
    found = work.outcome()
    text = f"{found['candidate']}, seed {found['seed']}, {found['elapsed_ms']:.0f} ms"
    lines = [text, *found["notes"], *(str(path) for path in work.paths)]
    images = [{"type": "image", "data": each.base64, "mimeType": each.media_type} for each in work.pictures]
    return {"content": [{"type": "text", "text": "\n".join(lines)}, *images], "isError": False, **_COMPLETE}


def _failed(message: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": message}], "isError": True, **_COMPLETE}


def _describe_server() -> dict[str, str]:
    return {"name": "costroute-rt", "title": "costroute-rt", "version": read_version()}


def _check_version(call: Call) -> None:
    """Raises RpcError if the request names a version of the protocol that is not spoken here; earlier clients name none."""
    meta = call.params.get("_meta")
    asked = meta.get(f"{_KEYS}protocolVersion") if isinstance(meta, dict) else None
    if asked is not None and asked not in (*MODERN, *VERSIONS):
        data = {"supported": [*MODERN, *VERSIONS], "requested": str(asked)[:64]}
        raise RpcError(UNSUPPORTED_VERSION, "this version of the protocol is not supported", data)
