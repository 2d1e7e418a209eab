"""diffusers on the CPU.

Settings: model (a folder), dtype, compile, warm_up_steps, steps, repeats, guidance_scale, height, width, prompt, seed, output, started.
"""

from __future__ import annotations

import json
import sys

from benchmarks.peers.programs.timed import run_pipeline, timed


def main() -> None:
    import torch
    from diffusers import DiffusionPipeline

    settings = json.loads(sys.argv[1])
    dtype = getattr(torch, settings["dtype"])
    pipeline = DiffusionPipeline.from_pretrained(settings["model"], torch_dtype=dtype, local_files_only=True)
    unet, vae = pipeline.unet, pipeline.vae
    if dtype == torch.bfloat16:
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    if settings["compile"]:
        unet.forward, vae.decoder.forward = torch.compile(unet.forward), torch.compile(vae.decoder.forward)
    steps: list[tuple[float, float]] = []
    decodes: list[tuple[float, float]] = []
    unet.forward, vae.decode = timed(unet.forward, steps), timed(vae.decode, decodes)
    run_pipeline(pipeline, settings, steps, decodes)


if __name__ == "__main__":
    main()
