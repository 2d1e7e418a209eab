"""Our own endpoints: routes, jobs with their events, the pool, and the server's state."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from costroute_rt.cli.server.answer import JsonResponse
from costroute_rt.cli.server.asking import JOB_FIELDS, ROUTE_FIELDS, ask_route, describe_pool, encode_preview, read_order
from costroute_rt.cli.server.body import Intake
from costroute_rt.cli.server.connection import EventStream, answer_while_connected, format_event
from costroute_rt.cli.server.field import Fields
from costroute_rt.cli.server.guard import caller_of
from costroute_rt.cli.server.metric import TYPE
from costroute_rt.cli.server.order import Order
from costroute_rt.cli.server.problem import Problem
from costroute_rt.cli.server.schema import make_document
from costroute_rt.cli.server.service import Phase, Service
from costroute_rt.cli.server.work import Bell, Event, State, Work
from costroute_rt.engines.machine.memory import resident_bytes

_PLACE_S = 0.5
"""How often a waiting job's place in the queue is looked at."""


class OwnApi:
    """The endpoints under /v1/ that other servers do not have, and those for who runs the server."""

    def __init__(self, service: Service, intake: Intake) -> None:
        self._service, self._intake = service, intake
        self._limits = service.settings.limits

    async def route(self, request: Request) -> Response:
        """POST /v1/route: the decision that a job would get now."""
        with self._intake.holding(request):
            fields = (await self._intake.read_json(request)).only((*ROUTE_FIELDS, "latest"))
            order = await self._read(request, fields)
        latest = fields.text("latest", most=64)
        return JsonResponse(await answer_while_connected(request, ask_route(self._service, order, latest)))

    async def submit(self, request: Request) -> Response:
        """POST /v1/jobs: begin a job, which goes on when the client leaves."""
        with self._intake.holding(request):
            fields = (await self._intake.read_json(request)).only(JOB_FIELDS)
            order = await self._read(request, fields)
        work = await answer_while_connected(request, self._service.submit(order))
        await self._service.check_accepted(work)
        return JsonResponse(work.to_json(), 202, headers={"location": f"jobs/{work.number}"})

    async def _read(self, request: Request, fields: Fields) -> Order:
        return await read_order(self._service, fields, arrived_s=request.state.arrived_s, owner=caller_of(request))

    async def jobs(self, request: Request) -> Response:
        """GET /v1/jobs: those of one client, or all."""
        client = request.query_params.get("client")
        works: Iterable[Work] = self._service.board if client is None else self._service.board.of_client(client)
        return JsonResponse({"object": "list", "data": [work.to_json() for work in works]})

    async def job(self, request: Request) -> Response:
        """GET /v1/jobs/{id}."""
        return JsonResponse(self._find(request).to_json())

    async def cancel(self, request: Request) -> Response:
        """DELETE /v1/jobs/{id}: cancel a job, or forget one that has ended, with its images."""
        work = self._find(request)
        if not work.cancel():
            self._service.board.discard(work)
        return JsonResponse({"id": work.number, "object": "job", "state": work.state.value, "deleted": True})

    async def job_events(self, request: Request) -> EventStream:
        """GET /v1/jobs/{id}/events: all events of a job from the first on, until its end."""
        work = self._find(request)
        return EventStream(self._events_of(work, _last_number(request)), send_s=self._limits.send_s)

    async def events(self, request: Request) -> EventStream:
        """GET /v1/events: the events of all jobs of one client in one stream, which does not end."""
        client = request.query_params.get("client", "")
        return EventStream(self._events_of_client(client, _last_number(request)), send_s=self._limits.send_s)

    async def pool(self, request: Request) -> Response:
        """GET /v1/pool: what can be used."""
        return JsonResponse(describe_pool(self._service))

    async def picture(self, request: Request) -> Response:
        """GET /pictures/{name}: the bytes of an image."""
        picture = self._service.board.gallery.find(request.path_params["name"])
        if picture is None:
            raise Problem(404, "picture_not_found", "there is no such image, or it has expired")
        return Response(picture.data, media_type=picture.media_type, headers={"cross-origin-resource-policy": "cross-origin"})

    async def health(self, request: Request) -> Response:
        """GET /healthz: the process answers."""
        return JsonResponse({"status": "ok"})

    async def readiness(self, request: Request) -> Response:
        """GET /readyz: 200 if requests are served now."""
        phase = self._service.phase
        found = {"status": phase.value, **(self._service.describe_opening() or {})}
        return JsonResponse(found, 200 if phase is Phase.READY else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: for Prometheus."""
        board = self._service.board
        gauges = (
            ("queued", "Requests that wait.", float(board.count(State.QUEUED))),
            ("running", "Requests whose images are being made.", float(board.count(State.RUNNING))),
            ("kept_bytes", "Finished images in memory.", float(board.gallery.bytes)),
            ("ready", "Whether requests are served.", float(self._service.phase is Phase.READY)),
            ("resident_memory_bytes", "Memory of the process.", float(resident_bytes() or 0)),
        )
        return Response(self._service.metrics.render(gauges), media_type=TYPE)

    async def document(self, request: Request) -> Response:
        """GET /openapi.json."""
        return JsonResponse(make_document(self._limits))

    def _find(self, request: Request) -> Work:
        work = self._service.board.find(request.path_params["number"])
        if work is None:
            raise Problem(404, "job_not_found", "there is no such job, or it has expired")
        return work

    async def _events_of(self, work: Work, after: int) -> AsyncGenerator[bytes, None]:
        """The events of one job after a number, until its end."""
        async with aclosing(work.follow(after, timeout_s=_PLACE_S)) as events:
            async for event in events:
                yield await self._format(event)

    async def _events_of_client(self, client: str, after: int) -> AsyncGenerator[bytes, None]:
        """The events of all jobs of a client after a number, in their order; never ends."""
        bell, board = Bell(), self._service.board

        def listen(work: Work) -> None:
            if work.order.client == client:
                work.bells.append(bell)
                bell.ring()

        known = board.of_client(client)
        board.on_add.append(listen)
        for work in known:
            listen(work)
        try:
            yield b": connected\n\n"
            while True:
                works = board.of_client(client)
                fresh = sorted((event for work in works for event in work.events_after(after)), key=lambda event: event.number)
                for event in fresh:
                    after = event.number
                    yield await self._format(event)
                if not fresh:
                    await self._wait(bell, works)
        finally:
            board.on_add.remove(listen)
            for work in board.of_client(client):
                if bell in work.bells:
                    work.bells.remove(bell)

    async def _wait(self, bell: Bell, works: Iterable[Work]) -> None:
        """Until something happens; meanwhile, jobs whose place in the queue has changed say so."""
        queued = [work for work in works if work.is_waiting]
        if not await bell.wait(_PLACE_S if queued else None):
            for work in queued:
                work.look_at_place()

    async def _format(self, event: Event) -> bytes:
        data = event.data
        if event.name == "step":
            data = {**data, "preview": await encode_preview(self._service, event)}
        return format_event(event.name, data, event.number)


def _last_number(request: Request) -> int:
    """The number of the last event that the client has seen; 0 if it has seen none."""
    text = request.headers.get("last-event-id") or request.query_params.get("last_event_id") or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
