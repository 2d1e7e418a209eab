"""optimum-onnx, which runs its own export of the model on ONNX Runtime.

Settings: model (as `optimum-cli export onnx` writes it), warm_up_steps, steps, repeats, guidance_scale, height, width, prompt, seed,
output, started.
"""

from __future__ import annotations

import json
import sys

from benchmarks.peers.programs.timed import run_pipeline, timed


def main() -> None:
    import onnxruntime
    from optimum.onnxruntime import ORTDiffusionPipeline

    settings = json.loads(sys.argv[1])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    pipeline = ORTDiffusionPipeline.from_pretrained(
        settings["model"], provider="CPUExecutionProvider", session_options=options, local_files_only=True
    )
    steps: list[tuple[float, float]] = []
    decodes: list[tuple[float, float]] = []
    unet, decoder = pipeline.unet, pipeline.vae_decoder
    unet.forward, decoder.forward = timed(unet.forward, steps), timed(decoder.forward, decodes)
    run_pipeline(pipeline, settings, steps, decodes)


if __name__ == "__main__":
    main()
