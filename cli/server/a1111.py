"""AUTOMATIC1111's web API: making images, progress and interruption, each for the caller's own images."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from costroute_rt import request as library
from costroute_rt.cli.server.a1111_choice import ModelChoices
from costroute_rt.cli.server.answer import JsonResponse
from costroute_rt.cli.server.body import Intake
from costroute_rt.cli.server.connection import answer_while_connected
from costroute_rt.cli.server.field import Fields, check_object, decode_base64
from costroute_rt.cli.server.guard import caller_of
from costroute_rt.cli.server.order import Order
from costroute_rt.cli.server.picture import Picture, encode_image
from costroute_rt.cli.server.problem import invalid, problem_of
from costroute_rt.cli.server.service import Service
from costroute_rt.cli.server.work import Work
from costroute_rt.embedded_text import find_text
from costroute_rt.error import ConfigError
from costroute_rt.image_settings import PARAMETERS_KEY, format_parameters, read_settings
from costroute_rt.source_image import SourceImage

_MOST_SIDE = 1 << 15
_TEXT = 1000
_USED = frozenset({
    "prompt", "negative_prompt", "seed", "batch_size", "n_iter", "width", "height", "model", "override_settings", "max_ms", "init_images",
    "or_fastest", "force_task_id", "denoising_strength", "mask", "inpainting_mask_invert", "sampler_name", "sampler_index", "scheduler",
})  # fmt: skip
_USUAL: Mapping[str, Any] = {
    "steps": 20, "cfg_scale": 7.0, "send_images": True, "script_args": [], "alwayson_scripts": {}, "styles": [], "subseed": -1,
    "seed_resize_from_h": -1, "seed_resize_from_w": -1, "s_noise": 1, "eta": 1.0, "override_settings_restore_afterwards": True,
    "hr_scale": 2, "hr_upscaler": "Latent", "save_images": True, "do_not_save_samples": True, "do_not_save_grid": True,
}  # fmt: skip
"""Values that clients send by default; all that is false counts as default too."""


class A1111Api:
    """The endpoints under /sdapi/v1/ that make images or are about those being made."""

    def __init__(self, service: Service, intake: Intake, choices: ModelChoices) -> None:
        self._service, self._intake, self._choices = service, intake, choices
        self._limits = service.settings.limits

    async def txt2img(self, request: Request) -> Response:
        """POST /sdapi/v1/txt2img."""
        with self._intake.holding(request):
            fields = await self._read(request)
        return await self._make(request, fields, {})

    async def img2img(self, request: Request) -> Response:
        """POST /sdapi/v1/img2img."""
        with self._intake.holding(request):
            fields = await self._read(request)
            options = await self._service.in_thread(partial(_read_images, fields))
        options["strength"] = fields.number("denoising_strength", above=0, most=1) or 0.75
        return await self._make(request, fields, options)

    async def progress(self, request: Request) -> Response:
        """GET /sdapi/v1/progress: of the caller's own image, or of the one that was named by `force_task_id`."""
        work = next(iter(self._own_works(request)), None)
        if work is None:
            return JsonResponse(_progress(0.0, 0.0, _state(), None))
        image = None if request.query_params.get("skip_current_image", "").lower() == "true" else work.last_image
        current = None if image is None else await self._service.in_thread(partial(encode_image, image, "png"))
        left_s = (work.ms_to_go or 0.0) / 1000
        return JsonResponse(_progress(max(0.01, work.progress), left_s, _state(work), current))

    async def interrupt(self, request: Request) -> Response:
        """POST /sdapi/v1/interrupt, and skip: ends the caller's own images after the step that runs."""
        for work in self._own_works(request):
            work.cancel()
        return JsonResponse({})

    async def png_info(self, request: Request) -> Response:
        """POST /sdapi/v1/png-info: the settings in an image file."""
        with self._intake.holding(request):
            fields = await self._read(request)
            data = decode_base64("image", fields.get("image"))
        info = await self._service.in_thread(partial(_read_parameters, data))
        return JsonResponse({"info": info, "items": {"parameters": info} if info else {}, "parameters": {}})

    async def _read(self, request: Request) -> Fields:
        return Fields(await self._intake.read_json(request), has_texts=True)

    def _own_works(self, request: Request) -> list[Work]:
        """The caller's works that have not ended, those that run first."""
        task, caller = request.query_params.get("id_task"), caller_of(request)
        active = [work for work in self._service.board.active() if not work.order.is_kept]
        own = [work for work in active if (work.order.task == task if task else work.order.owner == caller)]
        return sorted(own, key=lambda work: (work.last_step is None, work.created))

    async def _make(self, request: Request, fields: Fields, options: dict[str, Any]) -> Response:
        order = self._order(request, fields, options)
        work = await answer_while_connected(request, self._service.see_through(order))
        if work.problem is None:
            return await self._service.in_thread(lambda: JsonResponse(_answer(fields, work, [each.base64 for each in work.pictures])))
        if work.problem.code != "cancelled":
            raise work.problem
        return await self._service.in_thread(lambda: JsonResponse(_interrupted(fields, work)))

    def _order(self, request: Request, fields: Fields, options: dict[str, Any]) -> Order:
        most, caller = self._limits.prompt_characters, caller_of(request)
        count = (fields.whole("batch_size", least=1, most=most) or 1) * (fields.whole("n_iter", least=1, most=most) or 1)
        if count > self._limits.count:
            raise invalid("batch_size", f"batch_size x n_iter is {count}, of which {self._limits.count} are the most")
        seed = fields.whole("seed", least=-1, most=library.LAST_SEED)
        settings = check_object(fields.get("override_settings") or {})
        candidate, notes = self._choices.find(settings.get("sd_model_checkpoint") or fields.get("model"), caller)
        scheduler = None if candidate is None else _scheduler(fields)
        ignored = [name for name, value in fields.items() if name not in _USED and value and value != _USUAL.get(name)]
        if ignored:
            notes.append(f"ignored: {', '.join(sorted(name[:40] for name in ignored)[:50])}")
        made = library.Request(
            prompt=fields.text("prompt", most=most) or "",
            negative_prompt=fields.text("negative_prompt", most=most),
            seed=None if seed is None or seed < 0 else seed,
            count=count,
            width=fields.whole("width", least=1, most=_MOST_SIDE),
            height=fields.whole("height", least=1, most=_MOST_SIDE),
            max_ms=fields.number("max_ms", above=0) or self._service.settings.max_ms,
            or_fastest=fields.flag("or_fastest") or False,
            candidate=candidate,
            scheduler=scheduler,
            preview=True,
            **options,
        )
        task = fields.text("force_task_id", most=128) or ""
        return Order(
            request=made,
            arrived_s=request.state.arrived_s,
            owner=caller,
            task=task,
            hints=frozenset({"size", "scheduler"}),
            notes=tuple(notes),
        )


def _scheduler(fields: Fields) -> str | None:
    """The sampler that a client names together with a model; the usual ones of clients only stand for the model's own."""
    name = fields.text("sampler_name", most=_TEXT) or fields.text("sampler_index", most=_TEXT)
    if name is None or name.lower() in ("euler a", "euler", "automatic"):
        return None
    schedule = fields.text("scheduler", most=_TEXT)
    return name if schedule is None or schedule.lower() == "automatic" else f"{name} {schedule}"


def _read_images(fields: Fields) -> dict[str, Any]:
    images = fields.get("init_images")
    if not isinstance(images, list) or not images:
        raise invalid("init_images", "init_images must be a list with one image file in base64")
    data = decode_base64("init_images", images[0])
    found: dict[str, Any] = {"init_image": SourceImage.decode("init_images", data)}
    mask = fields.image("mask")
    if mask is not None:
        shown = SourceImage.decode("mask", mask)
        is_inverted = bool(fields.whole("inpainting_mask_invert", least=0, most=1))
        found["mask"] = SourceImage.of("mask", np.array(255 - shown.pixels)) if is_inverted else shown
    return found


def _answer(fields: Fields, work: Work, images: list[str]) -> dict[str, Any]:
    return {"images": images, "parameters": _echo(fields), "info": json.dumps(_info(work, work.pictures), allow_nan=False)}


def _interrupted(fields: Fields, work: Work) -> dict[str, Any]:
    """What there was when the caller interrupted it: the last preview, if there was one."""
    request = work.order.request
    info: dict[str, Any] = {"prompt": request.prompt, "seed": request.seed, "infotexts": [], "interrupted": True}
    images = [] if work.last_image is None else [encode_image(work.last_image, "png")]
    return {"images": images, "parameters": _echo(fields), "info": json.dumps(info)}


def _info(work: Work, pictures: tuple[Picture, ...]) -> dict[str, Any]:
    """What the web UI says of its images, by its names, and what we say under `costroute`."""
    request, settings, first = work.order.request, [each.settings for each in pictures], pictures[0]
    seeds, count = [each["seed"] for each in settings], len(pictures)
    scale = first.settings.get("guidance_scale")
    return {
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * count,
        "negative_prompt": request.negative_prompt or "",
        "all_negative_prompts": [request.negative_prompt or ""] * count,
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": seeds[0],
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": first.width,
        "height": first.height,
        "sampler_name": first.settings.get("scheduler"),
        "cfg_scale": 1.0 if scale is None else scale,
        "steps": first.settings.get("num_inference_steps"),
        "batch_size": count,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": first.settings.get("candidate"),
        "sd_model_hash": "",
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": first.settings.get("strength"),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [format_parameters(each) for each in settings],
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(work.created)),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "costroute": work.outcome(),
    }


def _echo(fields: Fields) -> dict[str, Any]:
    """The plain values of a request, as the web UI repeats them."""
    return {name: value for name, value in fields.items() if isinstance(value, str | int | float | bool) and name != "mask"}


def _state(work: Work | None = None) -> dict[str, Any]:
    step = None if work is None else work.last_step
    return {
        "skipped": False,
        "interrupted": work is not None and work.is_cancelled,
        "stopping_generation": False,
        "job": "" if work is None else work.order.task or work.number,
        "job_count": 0 if work is None else 1,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(None if work is None else work.created)),
        "job_no": 0,
        "sampling_step": 0 if step is None else step.index,
        "sampling_steps": 0 if step is None else step.total,
    }


def _progress(share: float, left_s: float, state: dict[str, Any], image: str | None) -> dict[str, Any]:
    return {"progress": round(share, 4), "eta_relative": round(left_s, 3), "state": state, "current_image": image, "textinfo": None}


def _read_parameters(data: bytes) -> str:
    """The settings of an image of ours, or what the web UI wrote into a PNG; empty without either."""
    try:
        return format_parameters(read_settings(data))
    except ConfigError:
        pass
    try:
        return find_text(io.BytesIO(data), PARAMETERS_KEY) or "" if data.startswith(b"\x89PNG") else ""
    except Exception as error:
        raise problem_of(ConfigError("image", f"{len(data)} bytes", "a PNG, JPEG or WebP file")) from error
