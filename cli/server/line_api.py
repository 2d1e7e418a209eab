"""The methods of the server over lines: those of HTTP, with images in their answers, and events as notifications."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from costroute_rt.cli.server.asking import JOB_FIELDS, ROUTE_FIELDS, ask_route, describe_pool, encode_preview, read_order
from costroute_rt.cli.server.field import Fields
from costroute_rt.cli.server.problem import Problem, invalid
from costroute_rt.cli.server.rpc import Call, Method
from costroute_rt.cli.server.service import Service
from costroute_rt.cli.server.work import Event, Work, describe

if TYPE_CHECKING:
    from costroute_rt.cli.server.order import Order

EVENT = "event"
"""Name of the notifications about a job."""
_PLACE_S = 0.5


class LineApi:
    """`pool`, `route`, `generate`, `submit`, `job`, `jobs`, `cancel`, `ready` and `status`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.methods: dict[str, Method] = {
            "pool": self.pool,
            "route": self.route,
            "generate": self.generate,
            "submit": self.submit,
            "job": self.job,
            "jobs": self.jobs,
            "cancel": self.cancel,
            "ready": self.ready,
            "status": self.status,
        }

    async def ready(self, call: Call) -> dict[str, Any]:
        """Returns when the runtime is open."""
        await self._service.opened()
        return {"status": self._service.phase.value}

    async def status(self, call: Call) -> dict[str, Any]:
        """Whether requests are served now, and how far the opening is."""
        return {"status": self._service.phase.value, **(self._service.describe_opening() or {})}

    async def pool(self, call: Call) -> dict[str, Any]:
        await self._service.opened()
        return describe_pool(self._service)

    async def route(self, call: Call) -> dict[str, Any]:
        fields = Fields(call.params).only((*ROUTE_FIELDS, "latest"))
        return await ask_route(self._service, await self._read(fields, call), fields.text("latest", most=64))

    async def generate(self, call: Call) -> dict[str, Any]:
        """Make images, with events meanwhile; ending the call ends the work."""
        fields = Fields(call.params).only((*JOB_FIELDS, "events", "images"))
        work = await self._service.submit(await self._read(fields, call))
        try:
            if fields.flag("events"):
                await self._tell(call, work)
            await work.ended()
            if work.problem is not None:
                raise work.problem
            return await self._show(work, fields)
        finally:
            self._service.leave(work)

    async def submit(self, call: Call) -> dict[str, Any]:
        """Begin a job; its events are sent until its end."""
        fields = Fields(call.params).only((*JOB_FIELDS, "events"))
        work = await self._service.submit(await self._read(fields, call))
        await self._service.check_accepted(work)
        if fields.flag("events") is not False:
            self._service.run_beside(self._tell(call, work))
        return work.to_json()

    async def job(self, call: Call) -> dict[str, Any]:
        """A job, with its images if it is done."""
        fields = Fields(call.params).only(("id", "images"))
        return await self._show(self._find(fields), fields)

    async def jobs(self, call: Call) -> dict[str, Any]:
        fields = Fields(call.params).only(("client",))
        client, board = fields.text("client", most=64), self._service.board
        return {"data": [work.to_json() for work in (board if client is None else board.of_client(client))]}

    async def cancel(self, call: Call) -> dict[str, Any]:
        """Cancel a job, or forget one that has ended."""
        work = self._find(Fields(call.params).only(("id",)))
        if not work.cancel():
            self._service.board.discard(work)
        return {"id": work.number, "state": work.state.value}

    async def _read(self, fields: Fields, call: Call) -> Order:
        return await read_order(self._service, fields, arrived_s=call.arrived_s, owner="lines")

    def _find(self, fields: Fields) -> Work:
        number = fields.text("id")
        if number is None:
            raise invalid("id", "id must be the id of a job")
        work = self._service.board.find(number)
        if work is None:
            raise Problem(404, "job_not_found", "there is no such job, or it has expired", param="id")
        return work

    async def _tell(self, call: Call, work: Work) -> None:
        """Send the events of a work until its end, the last of them without images."""
        async with aclosing(work.follow(timeout_s=_PLACE_S)) as events:
            async for event in events:
                await call.notify(EVENT, await self._format(event))

    async def _format(self, event: Event) -> dict[str, Any]:
        data = {"event": event.name, "number": event.number, **event.data}
        return {**data, "preview": await encode_preview(self._service, event)} if event.name == "step" else data

    async def _show(self, work: Work, fields: Fields) -> dict[str, Any]:
        """The work with its images as base64, or as the paths of their copies."""
        found, kind = work.to_json(), fields.choice("images", ("base64", "file", "none")) or "base64"
        if kind == "file" and not work.paths and work.pictures:
            raise invalid("images", "images are written to files only with --save-to")
        paths: tuple[Any, ...] = work.paths or (None,) * len(work.pictures)
        images = []
        for picture, path in zip(work.pictures, paths, strict=True):
            image = {**describe(picture, ""), "path": None if path is None else str(path)}
            if kind == "base64":
                image["base64"] = await self._service.in_thread(partial(getattr, picture, "base64"))
            images.append({name: value for name, value in image.items() if name != "url"})
        return {**found, "images": images}
