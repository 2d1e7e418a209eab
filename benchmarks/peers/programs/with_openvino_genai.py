"""OpenVINO GenAI on the CPU, with static shapes, as its documentation recommends for speed.

Settings: model (as `optimum-cli export openvino` writes it), precision (f32 or bf16), warm_up_steps, steps, repeats, guidance_scale,
height, width, prompt, seed, output, started.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    import openvino_genai
    from PIL import Image

    settings = json.loads(sys.argv[1])
    pipeline = openvino_genai.Text2ImagePipeline(settings["model"])
    pipeline.reshape(1, settings["height"], settings["width"], settings["guidance_scale"])
    pipeline.compile("CPU", INFERENCE_PRECISION_HINT=settings["precision"])
    options = {name: settings[name] for name in ("guidance_scale", "height", "width")} | {"rng_seed": settings["seed"]}
    asked = time.time()
    pipeline.generate(settings["prompt"], num_inference_steps=settings["warm_up_steps"], **options)
    first = pipeline.get_performance_metrics()
    spent_ms = first.raw_metrics.unet_inference_durations if hasattr(first, "raw_metrics") else []
    before_ms = first.get_generate_duration() - sum(spent_ms) / 1000 - first.get_vae_decoder_infer_duration()
    images = []
    for _ in range(settings["repeats"]):
        began = time.perf_counter()
        image = pipeline.generate(settings["prompt"], num_inference_steps=settings["steps"], **options)
        images.append(time.perf_counter() - began)
    metrics = pipeline.get_performance_metrics()
    Image.fromarray(image.data[0]).save(settings["output"])
    print(
        json.dumps(
            {
                "first_step_s": asked - settings["started"] + before_ms / 1000,
                "image_s": images,
                "step_s": [each / 1e6 for each in metrics.raw_metrics.unet_inference_durations],
                "decode_s": metrics.get_vae_decoder_infer_duration() / 1000,
            }
        )
    )


if __name__ == "__main__":
    main()
