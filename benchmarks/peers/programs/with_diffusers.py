"""diffusers on the CPU.

Settings: model (a folder), dtype, compile, warm_up_steps, steps, guidance_scale, height, width, prompt, seed, output, started.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def timed(function: Callable[..., Any], spans: list[tuple[float, float]]) -> Callable[..., Any]:
    """The function, with the start and end of each call added to `spans`."""

    def call(*args: Any, **options: Any) -> Any:
        began = time.time()
        result = function(*args, **options)
        spans.append((began, time.time()))
        return result

    return call


def main() -> None:
    import torch
    from diffusers import DiffusionPipeline

    settings = json.loads(sys.argv[1])
    dtype = getattr(torch, settings["dtype"])
    pipeline = DiffusionPipeline.from_pretrained(settings["model"], torch_dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    unet, vae = pipeline.unet, pipeline.vae
    if dtype == torch.bfloat16:
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    if settings["compile"]:
        unet.forward, vae.decoder.forward = torch.compile(unet.forward), torch.compile(vae.decoder.forward)
    steps: list[tuple[float, float]] = []
    decodes: list[tuple[float, float]] = []
    unet.forward, vae.decode = timed(unet.forward, steps), timed(vae.decode, decodes)

    def generate(count: int) -> Any:
        options = {name: settings[name] for name in ("prompt", "guidance_scale", "height", "width")}
        with torch.inference_mode():
            return pipeline(num_inference_steps=count, generator=torch.Generator().manual_seed(settings["seed"]), **options).images[0]

    generate(settings["warm_up_steps"])
    before = len(steps)
    generate(settings["steps"]).save(settings["output"])
    print(
        json.dumps(
            {
                "first_step_s": steps[0][0] - settings["started"],
                "step_s": [end - began for began, end in steps[before:]],
                "decode_s": decodes[-1][1] - decodes[-1][0],
            }
        )
    )


if __name__ == "__main__":
    main()
