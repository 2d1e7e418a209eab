"""Schedulers that a user names for the candidates of a bundle, as a manifest holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from costroute_rt.error import ConfigError
from costroute_rt.sampling.diffusers_config import SUPPORTED, class_kind, from_diffusers
from costroute_rt.sampling.named_scheduler import named_scheduler
from costroute_rt.sampling.scheduler_config import SchedulerConfig

_OF_ORDER_2 = {"dpmpp_3m": "dpmpp_2m", "dpmpp_3s": "dpmpp_2s"}
"""Kinds that are a class of diffusers with the setting solver_order 3."""


def find_scheduler(name: str, own: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The settings of a scheduler by its name in diffusers, AUTOMATIC1111 or ComfyUI, and what it replaces in a sentence, if it does.

    own: settings of the model's scheduler. Raises ConfigError for an unknown name, and for a scheduler that manifests cannot hold.
    """
    config, note = named_scheduler(name, from_diffusers(own))
    settings = _to_diffusers(config)
    if settings is None or from_diffusers(settings) != config:
        raise ConfigError("scheduler", name, "one that diffusers has a class for; others can be named when images are made")
    return settings, note


def _to_diffusers(config: SchedulerConfig) -> dict[str, Any] | None:
    """The settings in diffusers' form; None for a scheduler that it has no class for."""
    kind = _OF_ORDER_2.get(config.name, config.name)
    class_name = next((each for each in SUPPORTED if (class_kind(each) or ("",))[0] == kind), None)
    if class_name is None:
        return None
    left_out = {"name", "shift"} | ({"variance_type"} if config.name != "ddpm" else set())
    values = {field.name: getattr(config, field.name) for field in fields(config) if field.name not in left_out}
    order = {"solver_order": 3} if config.name in _OF_ORDER_2 else {}
    plain = {key: value for key, value in values.items() if value != -math.inf}  # which JSON cannot hold, and is the default
    return {"_class_name": class_name, **plain, **order, "clip_sample": False}
