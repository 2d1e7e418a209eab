"""Pipelines with diffusers' interface, timed: for the programs beside this file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

Span = tuple[float, float]


def timed(function: Callable[..., Any], spans: list[Span]) -> Callable[..., Any]:
    """The function, with the start and end of each call added to `spans`."""

    def call(*args: Any, **options: Any) -> Any:
        began = time.time()
        result = function(*args, **options)
        spans.append((began, time.time()))
        return result

    return call


def run_pipeline(pipeline: Any, settings: Mapping[str, Any], steps: list[Span], decodes: list[Span]) -> None:
    """Generates the images and prints the report; steps and decodes: filled while the pipeline runs."""
    import torch

    pipeline.set_progress_bar_config(disable=True)
    options = {name: settings[name] for name in ("prompt", "guidance_scale", "height", "width")}

    def generate(count: int) -> Any:
        with torch.inference_mode():
            return pipeline(num_inference_steps=count, generator=torch.Generator().manual_seed(settings["seed"]), **options).images[0]

    generate(settings["warm_up_steps"])
    images: list[Span] = []
    for _ in range(settings["repeats"]):
        before = len(steps)
        image = timed(generate, images)(settings["steps"])
    image.save(settings["output"])
    report = {
        "first_step_s": steps[0][0] - settings["started"],
        "image_s": [end - began for began, end in images],
        "step_s": [end - began for began, end in steps[before:]],
        "decode_s": decodes[-1][1] - decodes[-1][0],
    }
    print(json.dumps(report))
