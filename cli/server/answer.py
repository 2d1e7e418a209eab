"""Answers: JSON, problems, and the headers that every answer has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from costroute_rt.cli.server.problem import Problem

COMMON = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
}
"""Headers of every answer that does not set them itself."""


class JsonResponse(Response):
    """Plain data as JSON in UTF-8."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def answer_problem(problem: Problem) -> Response:
    return JsonResponse(problem.to_json(), problem.status, headers=problem.headers)


class CommonHeaders:
    """Middleware that adds the common headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_headers(message, COMMON)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def add_headers(message: Message, headers: Mapping[str, str]) -> None:
    """Add those headers to the start of an answer that it does not have."""
    present = {name.lower() for name, _ in message.setdefault("headers", [])}
    found = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    message["headers"] = [*message["headers"], *(pair for pair in found if pair[0] not in present)]
