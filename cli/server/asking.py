"""What clients of our own interfaces ask for, over HTTP and over lines alike: orders, routes, the pool."""

from __future__ import annotations

from functools import partial
from typing import Any

from costroute_rt.cli.server.field import Fields
from costroute_rt.cli.server.order import Order
from costroute_rt.cli.server.picture import TYPES, encode_image
from costroute_rt.cli.server.problem import Problem, problem_of
from costroute_rt.cli.server.service import Service
from costroute_rt.cli.server.work import Event
from costroute_rt.request import LAST_SEED, Request
from costroute_rt.source_image import SourceImage

AUTO = "auto"
MOST_SIDE = 1 << 15
ROUTE_FIELDS = (
    "prompt", "negative_prompt", "max_ms", "candidate", "scheduler", "seed", "count", "height", "width", "lam", "tolerance", "or_fastest",
    "plain_prompt", "init_image", "strength", "mask",
)  # fmt: skip
JOB_FIELDS = (*ROUTE_FIELDS, "preview", "format", "quality", "client")


async def read_order(service: Service, fields: Fields, *, arrived_s: float, owner: object = None) -> Order:
    """The order that a job's fields describe; raises Problem, and what `Request` raises. It is kept after its end."""
    limits, candidate = service.settings.limits, fields.text("candidate")
    most = limits.prompt_characters
    options: dict[str, Any] = {
        "negative_prompt": fields.text("negative_prompt", most=most),
        "max_ms": fields.number("max_ms", above=0) or service.settings.max_ms,
        "candidate": None if candidate in (None, "", AUTO) else candidate,
        "scheduler": fields.text("scheduler"),
        "seed": fields.whole("seed", least=0, most=LAST_SEED),
        "count": fields.whole("count", least=1, most=limits.count) or 1,
        "height": fields.whole("height", least=1, most=MOST_SIDE),
        "width": fields.whole("width", least=1, most=MOST_SIDE),
        "lam": fields.number("lam", least=0) or 0.0,
        "tolerance": fields.number("tolerance", least=0) or 0.0,
        "or_fastest": fields.flag("or_fastest") or False,
        "preview": fields.flag("preview") or False,
        "plain_prompt": fields.flag("plain_prompt") or False,
        "strength": fields.number("strength", above=0, most=1),
    }
    for name in ("init_image", "mask"):
        data = fields.image(name)
        if data is not None:
            options[name] = await service.in_thread(partial(SourceImage.decode, name, data))
    return Order(
        request=Request(prompt=fields.text("prompt", most=most) or "", **options),
        arrived_s=arrived_s,
        format=fields.choice("format", tuple(TYPES)) or "png",
        quality=fields.whole("quality", least=1, most=100) or 90,
        is_kept=True,
        client=fields.text("client", most=64) or "",
        owner=owner,
    )


async def ask_route(service: Service, order: Order, latest: str | None) -> dict[str, Any]:
    """The decision for an order now, as plain data; raises Problem."""
    try:
        found = await service.route(order, latest)
    except Exception as error:
        problem = problem_of(error)
        if problem.code == "cancelled":
            problem = Problem(409, "superseded", "a later request with the same `latest` took its place")
        raise problem.once() from None
    runtime = await service.opened()
    return {**found.to_json(), "max_ms": order.request.max_ms, "fallback": runtime.fallback, "assumes": runtime.assumes}


def describe_pool(service: Service) -> dict[str, Any]:
    """What can be used."""
    runtime, limits = service.runtime, service.settings.limits
    found: dict[str, Any] = {
        "state": service.phase.value,
        "opening": service.describe_opening(),
        "family": "",
        "candidates": [],
        "image_sizes": [],
        "fallback": None,
        "assumes": None,
        "formats": list(TYPES),
        "limits": {"count": limits.count, "prompt_characters": limits.prompt_characters},
    }
    if runtime is None:
        return found
    names = ("name", "family", "denoiser", "scheduler", "num_inference_steps", "guidance_scale", "is_guided", "decoder", "has_bundle")
    return {
        **found,
        "family": runtime.family,
        "candidates": [{name: getattr(each, name) for name in names} for each in runtime.candidates],
        "image_sizes": [{"height": height, "width": width} for height, width in runtime.image_sizes],
        "fallback": runtime.fallback,
        "assumes": runtime.assumes,
    }


async def encode_preview(service: Service, event: Event) -> str | None:
    """The preview of a step as a JPEG in base64; None if it has none, or a later one took its place."""
    image = event.image
    return None if image is None else await service.in_thread(partial(encode_image, image, "jpeg", quality=75))
