"""stable-diffusion.cpp by its Python package, from a single file, with flash attention in the denoiser.

Settings: model (a single file), warm_up_steps, steps, repeats, guidance_scale, height, width, prompt, seed, output, started. Weights stay
in the file's precision. Decoding is what follows the last step.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time


def main() -> None:
    from stable_diffusion_cpp import StableDiffusion

    settings = json.loads(sys.argv[1])
    model = StableDiffusion(
        model_path=settings["model"],
        vae_decode_only=True,
        n_threads=len(os.sched_getaffinity(0)),
        diffusion_flash_attn=True,
        verbose=False,
    )
    calls: list[float] = []
    """When an image's first step began, then when each step ended."""
    options = {"prompt": settings["prompt"], "cfg_scale": settings["guidance_scale"], "seed": settings["seed"], "sample_method": "euler"}
    options |= {name: settings[name] for name in ("height", "width")}
    options["progress_callback"] = lambda step, steps, seconds: calls.append(time.time())
    model.generate_image(sample_steps=settings["warm_up_steps"], **options)
    first_step = calls[0]
    images = []
    for _ in range(settings["repeats"]):
        calls.clear()
        began = time.time()
        image = model.generate_image(sample_steps=settings["steps"], **options)[0]
        ended = time.time()
        images.append(ended - began)
    image.save(settings["output"])
    steps = [after - before for before, after in itertools.pairwise(calls)]
    report = {"first_step_s": first_step - settings["started"], "image_s": images, "step_s": steps, "decode_s": ended - calls[-1]}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
