"""OpenAI's images API: generations, edits, models; what its clients send is accepted, with `max_ms` and other keys of ours beside it."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from costroute_rt import request as library
from costroute_rt.cli.server.answer import JsonResponse
from costroute_rt.cli.server.body import Intake
from costroute_rt.cli.server.connection import EventStream, answer_while_connected, format_event
from costroute_rt.cli.server.field import Fields
from costroute_rt.cli.server.guard import caller_of
from costroute_rt.cli.server.order import Order
from costroute_rt.cli.server.picture import Picture, encode_image
from costroute_rt.cli.server.problem import Problem, invalid
from costroute_rt.cli.server.service import Service
from costroute_rt.cli.server.work import Event, Work
from costroute_rt.source_image import SourceImage

AUTO = "auto"
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_URL_MODELS = "dall-e"
"""Models of such names answer with addresses unless asked for base64, and clients of theirs rely on it."""
_QUALITIES = ("auto", "low", "medium", "high", "standard", "hd")
_MOST_PARTIAL, _MOST_IMAGES = 3, 16
_USAGE = {"input_tokens": 0, "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}, "output_tokens": 0, "total_tokens": 0}
"""There are no tokens to pay for."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How an answer has to look."""

    order: Order
    has_urls: bool
    """Whether images are answered as addresses instead of base64."""
    is_stream: bool
    quality: str
    event: str
    """First part of the names of events."""


class OpenAiApi:
    """The endpoints under /v1/ that OpenAI has too."""

    def __init__(self, service: Service, intake: Intake) -> None:
        self._service, self._intake = service, intake
        self._limits = service.settings.limits
        self._created = int(time.time())

    async def generate(self, request: Request) -> ASGIApp:
        """POST /v1/images/generations."""
        with self._intake.holding(request):
            fields = Fields(await self._intake.read_json(request), has_texts=True)
        return await self._answer(request, self._wish(request, fields, {}, "image_generation", []))

    async def edit(self, request: Request) -> ASGIApp:
        """POST /v1/images/edits."""
        with self._intake.holding(request):
            form = await self._intake.read_form(request)
            images = [*form.files.get("image", []), *form.files.get("image[]", [])]
            if not images:
                raise invalid("image", "the form has no file `image`", code="missing_image")
            if len(images) > _MOST_IMAGES:
                raise invalid("image", f"{_MOST_IMAGES} images are the most")
            options = await self._service.in_thread(lambda: _read_images(images[0], form.files.get("mask", [])))
        options["strength"] = form.fields.number("strength", above=0, most=1)
        notes = [f"only the first of {len(images)} images is used"] if len(images) > 1 else []
        return await self._answer(request, self._wish(request, form.fields, options, "image_edit", notes))

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return JsonResponse({"object": "list", "data": [self._model(name) for name in self._names()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{name}."""
        name = request.path_params["name"]
        if name not in self._names():
            raise Problem(
                404, "model_not_found", f"there is no model {name[:64]!r}; requests for it get `auto` all the same", param="model"
            )
        return JsonResponse(self._model(name))

    def _names(self) -> list[str]:
        runtime = self._service.runtime
        return [AUTO, *(each.name for each in (runtime.candidates if runtime else ()) if each.has_bundle)]

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "costroute-rt"}

    def _wish(self, request: Request, fields: Fields, options: dict[str, Any], event: str, notes: list[str]) -> Wish:
        """What the fields ask for; of the fields that are not known nothing is said, as clients send many."""
        model, most = fields.text("model") or AUTO, self._limits.prompt_characters
        height, width = _read_size(fields)
        fields.choice("quality", _QUALITIES)
        if fields.choice("background", ("auto", "opaque", "transparent")) == "transparent":
            raise invalid("background", "images are opaque: background must be auto or opaque")
        partial_images = fields.whole("partial_images", least=0, most=_MOST_PARTIAL) or 0
        partial_images = partial_images if fields.flag("stream") else 0
        made = library.Request(
            prompt=fields.text("prompt", most=most) or "",
            negative_prompt=fields.text("negative_prompt", most=most),
            count=fields.whole("n", least=0, most=self._limits.count) or 1,
            height=height,
            width=width,
            max_ms=fields.number("max_ms", above=0) or self._service.settings.max_ms,
            candidate=model if model in self._names()[1:] else None,
            seed=fields.whole("seed", least=0, most=library.LAST_SEED),
            scheduler=fields.text("scheduler"),
            or_fastest=fields.flag("or_fastest") or False,
            preview=bool(partial_images),
            **options,
        )
        compression = fields.whole("output_compression", least=0, most=100)
        order = Order(
            request=made,
            arrived_s=request.state.arrived_s,
            format=fields.choice("output_format", ("png", "jpeg", "webp")) or "png",
            quality=90 if compression is None else max(1, compression),
            owner=caller_of(request),
            hints=frozenset({"size"}),
            partial_images=partial_images,
            notes=tuple(notes),
        )
        wanted = fields.choice("response_format", ("b64_json", "url"))
        return Wish(
            order=order,
            has_urls=wanted == "url" or (wanted is None and model.startswith(_URL_MODELS)),
            is_stream=fields.flag("stream") or False,
            quality=fields.text("quality") or AUTO,
            event=event,
        )

    async def _answer(self, request: Request, wish: Wish) -> ASGIApp:
        if wish.is_stream:
            return await self._stream(request, wish)
        work = await answer_while_connected(request, self._service.make(wish.order))
        return await self._service.in_thread(lambda: JsonResponse(self._response(work, wish, _address(request))))

    def _response(self, work: Work, wish: Wish, address: str) -> dict[str, Any]:
        pictures = work.pictures
        if wish.has_urls:
            data = [{"url": f"{address}pictures/{self._service.board.gallery.add(picture)}"} for picture in pictures]
        else:
            data = [{"b64_json": picture.base64} for picture in pictures]
        return {
            "created": work.created,
            "data": data,
            **_look(wish, f"{pictures[0].width}x{pictures[0].height}"),
            "usage": _USAGE,
            "costroute": work.outcome(),
        }

    async def _stream(self, request: Request, wish: Wish) -> EventStream:
        """The events of a work that was accepted; a refusal is an answer of its own."""
        work = await answer_while_connected(request, self._service.begin(wish.order))
        return EventStream(self._events(work, wish), send_s=self._limits.send_s)

    async def _events(self, work: Work, wish: Wish) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(work.follow()) as events:
                async for event in events:
                    if event.partial is not None and event.image is not None:
                        yield await self._service.in_thread(partial(_format_partial, event, work, wish))
                        event.image = None
            if work.problem is not None:
                yield format_event(None, work.problem.to_json())
                return
            for picture in work.pictures:
                yield await self._service.in_thread(partial(_format_completed, picture, work, wish))
        finally:
            self._service.leave(work)


def _format_partial(event: Event, work: Work, wish: Wish) -> bytes:
    name, image = f"{wish.event}.partial_image", event.image
    assert image is not None
    look = _look(wish, f"{image.width}x{image.height}")
    data = {"type": name, "b64_json": encode_image(image, wish.order.format), "partial_image_index": event.partial, **look}
    data["created_at"] = work.created
    own = {"ms_to_go": event.data["ms_to_go"], "step": event.data["step"], "steps": event.data["steps"]}
    return format_event(name, {**data, **own})


def _format_completed(picture: Picture, work: Work, wish: Wish) -> bytes:
    name = f"{wish.event}.completed"
    look = _look(wish, f"{picture.width}x{picture.height}")
    data = {"type": name, "b64_json": picture.base64, **look, "created_at": work.created, "usage": _USAGE}
    return format_event(name, {**data, "ms_to_go": 0.0, "costroute": work.outcome()})


def _look(wish: Wish, size: str) -> dict[str, Any]:
    quality = wish.quality if wish.quality in ("low", "medium", "high") else AUTO
    return {"size": size, "quality": quality, "background": "opaque", "output_format": wish.order.format}


def _read_size(fields: Fields) -> tuple[int | None, int | None]:
    """Height and width; OpenAI has the width first."""
    text = fields.text("size")
    if text is None or text == AUTO:
        return None, None
    found = _SIZE.fullmatch(text)
    if found is None:
        raise invalid("size", "size must be auto or WIDTHxHEIGHT, such as 512x512")
    return int(found[2]), int(found[1])


def _read_images(image: bytes, masks: list[bytes]) -> dict[str, Any]:
    """The image to edit, and what of it is transparent in the mask."""
    found: dict[str, Any] = {"init_image": SourceImage.decode("image", image)}
    if masks:
        found["mask"] = SourceImage.decode_transparency("mask", masks[0])
    return found


def _address(request: Request) -> str:
    """The server's address as the client has it."""
    return f"{request.scope['scheme']}://{request.headers['host']}/"
