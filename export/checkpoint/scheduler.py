"""The scheduler of a checkpoint, as its files describe it."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any


def read_scheduler(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a checkpoint's file, with the two settings that StableDiffusionPipeline corrects when it loads a scheduler."""
    return plain_config({**config, "steps_offset": 1, "clip_sample": False})


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON; infinities (lambda_min_clipped), which JSON cannot hold, are defaults and left out."""
    without = {"_diffusers_version", "_name_or_path"}
    return {k: v for k, v in config.items() if k not in without and not (isinstance(v, float) and not isfinite(v))}
