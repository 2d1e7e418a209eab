"""The application: every address of the server, and what stands before them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from costroute_rt.cli.server.a1111 import A1111Api
from costroute_rt.cli.server.a1111_choice import EMPTY, A1111Choices, ModelChoices
from costroute_rt.cli.server.answer import CommonHeaders, answer_problem
from costroute_rt.cli.server.body import Intake
from costroute_rt.cli.server.connection import ClientGoneError
from costroute_rt.cli.server.guard import Guard
from costroute_rt.cli.server.openai import OpenAiApi
from costroute_rt.cli.server.own import OwnApi
from costroute_rt.cli.server.page import PAGE, serve_page
from costroute_rt.cli.server.problem import Problem, problem_of
from costroute_rt.cli.server.service import Service

Endpoint: TypeAlias = Callable[[Request], Awaitable[ASGIApp]]
"""Answers a request; pure ASGI, because wrappers of requests hide that a client has left."""
ARRIVED = "arrived_s"
"""Where the state of a request has the time of its first byte, by `time.perf_counter`."""
_CODES = {404: "not_found", 405: "method_not_allowed"}


def make_app(service: Service) -> ASGIApp:
    """Everything that the server answers."""
    settings, intake = service.settings, Intake(service.settings.limits)
    return CommonHeaders(Guard(Answering(Router(routes=make_routes(service, intake)), service), settings))


def make_routes(service: Service, intake: Intake) -> list[Route]:
    """Every address."""
    return [
        *own_routes(OwnApi(service, intake)),
        *openai_routes(OpenAiApi(service, intake)),
        *a1111_routes(service, intake),
        *page_routes(),
    ]


def own_routes(api: OwnApi) -> list[Route]:
    return [
        route("/v1/route", api.route, "POST"),
        route("/v1/jobs", api.submit, "POST"),
        route("/v1/jobs", api.jobs, "GET"),
        route("/v1/jobs/{number}", api.job, "GET"),
        route("/v1/jobs/{number}", api.cancel, "DELETE"),
        route("/v1/jobs/{number}/events", api.job_events, "GET"),
        route("/v1/events", api.events, "GET"),
        route("/v1/pool", api.pool, "GET"),
        route("/pictures/{name}", api.picture, "GET"),
        route("/healthz", api.health, "GET"),
        route("/readyz", api.readiness, "GET"),
        route("/metrics", api.metrics, "GET"),
        route("/openapi.json", api.document, "GET"),
    ]


def openai_routes(api: OpenAiApi) -> list[Route]:
    return [
        route("/v1/images/generations", api.generate, "POST"),
        route("/v1/images/edits", api.edit, "POST"),
        route("/v1/models", api.models, "GET"),
        route("/v1/models/{name}", api.model, "GET"),
    ]


def a1111_routes(service: Service, intake: Intake) -> list[Route]:
    choices = ModelChoices(service)
    api, lists = A1111Api(service, intake, choices), A1111Choices(service, intake, choices)
    gets = {
        "progress": api.progress,
        "options": lists.options,
        "sd-models": lists.models,
        "samplers": lists.samplers,
        "schedulers": lists.schedulers,
        "memory": lists.memory,
        **dict.fromkeys(EMPTY, lists.empty),
    }
    posts = {
        "txt2img": api.txt2img,
        "img2img": api.img2img,
        "interrupt": api.interrupt,
        "skip": api.interrupt,
        "png-info": api.png_info,
        "options": lists.set_options,
        "refresh-checkpoints": lists.refresh,
    }
    return [
        *(route(f"/sdapi/v1/{name}", endpoint, "GET") for name, endpoint in gets.items()),
        *(route(f"/sdapi/v1/{name}", endpoint, "POST") for name, endpoint in posts.items()),
    ]


def page_routes() -> list[Route]:
    return [route(path, serve_page, "GET") for path in PAGE]


def route(path: str, endpoint: Endpoint, method: str) -> Route:
    """One address; its endpoint is an application of its own, which Starlette leaves as it is."""
    return Route(path, _Adapter(endpoint, path), methods=[method])


class _Adapter:
    """An endpoint as an ASGI application."""

    def __init__(self, endpoint: Endpoint, pattern: str) -> None:
        self._endpoint, self._pattern = endpoint, pattern

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["pattern"] = self._pattern
        answer = await self._endpoint(Request(scope, receive, send))
        await answer(scope, receive, send)


class Answering:
    """Middleware that turns what endpoints raise into answers, and counts answers. A request that fails ends no other."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._metrics = app, service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # then the router raises what it would otherwise answer as plain text
        status = 0

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except (ClientGoneError, ClientDisconnect):
            status = status or 499
        except Exception as error:
            answer = _answer_of_router(error, scope["method"]) if isinstance(error, HTTPException) else answer_problem(problem_of(error))
            if status:  # the answer has begun, and can only end here
                raise
            await answer(scope, receive, note_status)
        finally:
            self._metrics.count_request(scope["state"].get("pattern", "other"), status)


def _answer_of_router(error: HTTPException, method: str) -> Response:
    """What is answered where there is no such address or method; clients ask with OPTIONS whether an address exists."""
    if method == "OPTIONS" and error.status_code == 405:
        return Response(status_code=204)
    message = {404: "there is nothing at this address", 405: "this address has no such method"}.get(error.status_code, error.detail)
    code = _CODES.get(error.status_code, "invalid_request")
    return answer_problem(Problem(error.status_code, code, message, headers=dict(error.headers or {})))
