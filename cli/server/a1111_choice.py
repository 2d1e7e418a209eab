"""AUTOMATIC1111's web API: what there is to choose from, and each caller's options."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from costroute_rt.cli.server.answer import JsonResponse
from costroute_rt.cli.server.body import Intake
from costroute_rt.cli.server.guard import caller_of
from costroute_rt.cli.server.service import Service
from costroute_rt.engines.machine.device import memory_bytes
from costroute_rt.engines.machine.memory import available_bytes, resident_bytes
from costroute_rt.sampling.named_scheduler import NAMES, SCHEDULE_NAMES

AUTO = "auto"
_MOST_CALLERS = 64
EMPTY: dict[str, Any] = {
    "sd-vae": [],
    "sd-modules": [],
    "loras": [],
    "hypernetworks": [],
    "face-restorers": [],
    "prompt-styles": [],
    "embeddings": {"loaded": {}, "skipped": {}},
    "scripts": {"txt2img": [], "img2img": []},
    "script-info": [],
    "cmd-flags": {},
    "upscalers": [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}],
    "latent-upscale-modes": [{"name": "Latent"}],
}
"""Answers about what the web UI has and we have not."""


class ModelChoices:
    """The model that each caller chose by its options; the web UI has one for all."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._chosen: dict[Hashable, str] = {}

    def names(self) -> list[str]:
        """`auto`, and the candidates that can be run."""
        runtime = self._service.runtime
        return [AUTO, *(each.name for each in (runtime.candidates if runtime else ()) if each.has_bundle)]

    def choose(self, name: object, caller: Hashable) -> None:
        """Remember a caller's model; the caller that chose first is forgotten when there are many."""
        self._chosen.pop(caller, None)
        if isinstance(name, str) and name in self.names():
            self._chosen[caller] = name
        while len(self._chosen) > _MOST_CALLERS:
            del self._chosen[next(iter(self._chosen))]

    def chosen(self, caller: Hashable) -> str:
        return self._chosen.get(caller, AUTO)

    def find(self, name: object, caller: Hashable) -> tuple[str | None, list[str]]:
        """The candidate that a request names, else the caller's, None for `auto`; and what there is to say about it."""
        if not isinstance(name, str) or not name:
            name = self.chosen(caller)
        if name not in self.names():
            return None, [f"there is no model {name[:64]!r}, so it was chosen by the budget"]
        return (None if name == AUTO else name), []


class A1111Choices:
    """The endpoints under /sdapi/v1/ that list and set what a client can choose."""

    def __init__(self, service: Service, intake: Intake, choices: ModelChoices) -> None:
        self._service, self._intake, self._choices = service, intake, choices

    async def options(self, request: Request) -> Response:
        """GET /sdapi/v1/options."""
        return JsonResponse(
            {
                "sd_model_checkpoint": self._choices.chosen(caller_of(request)),
                "sd_checkpoint_hash": "",
                "sd_vae": "Automatic",
                "CLIP_stop_at_last_layers": 1,
                "samples_save": self._service.settings.save_to is not None,
                "samples_format": "png",
                "live_previews_enable": True,
                "show_progress_every_n_steps": 1,
            }
        )

    async def set_options(self, request: Request) -> Response:
        """POST /sdapi/v1/options: only the model can be chosen; clients send all others back."""
        with self._intake.holding(request):
            fields = await self._intake.read_json(request)
        if "sd_model_checkpoint" in fields:
            self._choices.choose(fields["sd_model_checkpoint"], caller_of(request))
        return JsonResponse(None)

    async def models(self, request: Request) -> Response:
        """GET /sdapi/v1/sd-models."""
        names = self._choices.names()
        return JsonResponse(
            [{"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None} for name in names]
        )

    async def samplers(self, request: Request) -> Response:
        """GET /sdapi/v1/samplers: by the web UI's names, which begin with a capital letter."""
        return JsonResponse([{"name": name, "aliases": [], "options": {}} for name in NAMES if name[0].isupper()])

    async def schedulers(self, request: Request) -> Response:
        """GET /sdapi/v1/schedulers."""
        return JsonResponse(
            [
                {"name": name, "label": name.title(), "aliases": None, "default_rho": -1, "need_inner_model": False}
                for name in SCHEDULE_NAMES
            ]
        )

    async def memory(self, request: Request) -> Response:
        """GET /sdapi/v1/memory."""
        ram = {"free": available_bytes() or 0, "used": resident_bytes() or 0, "total": memory_bytes()}
        return JsonResponse({"ram": ram, "cuda": {}})

    async def refresh(self, request: Request) -> Response:
        """POST /sdapi/v1/refresh-checkpoints: there is nothing to read again."""
        return JsonResponse(None)

    async def empty(self, request: Request) -> Response:
        """GET of what there is none of."""
        return JsonResponse(EMPTY[request.scope["path"].rpartition("/")[2]])
