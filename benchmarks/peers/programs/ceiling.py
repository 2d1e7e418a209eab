"""What the CPU can do at most: floating-point operations a second of a large matrix product in torch, and those that a denoiser call needs.

Settings: model (a diffusers folder), height, width, guided (two passes in one call).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

SIZE, REPEATS = 4096, 7


def measure_product(dtype: Any) -> float:
    """The most operations a second of a square matrix product."""
    import torch

    matrix = torch.randn(SIZE, SIZE).to(dtype)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    return float(2 * SIZE**3 / min(times))


def count_operations(model: Path, height: int, width: int, batch: int) -> int:
    """Of one call of the denoiser, from its configuration alone."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(str(model / "unet")))
        config, added = unet.config, None
        sample = torch.empty(batch, config.in_channels, height, width)
        states = torch.empty(batch, 77, config.cross_attention_dim)
        if config.addition_embed_type == "text_time":
            pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            added = {"text_embeds": torch.empty(batch, pooled), "time_ids": torch.empty(batch, 6)}
        with FlopCounterMode(display=False) as counter:
            unet(sample, torch.empty(batch), states, added_cond_kwargs=added)
    return int(counter.get_total_flops())


def main() -> None:
    import torch

    settings = json.loads(sys.argv[1])
    model = Path(settings["model"])
    scale = 2 ** (len(json.loads((model / "vae" / "config.json").read_text())["block_out_channels"]) - 1)
    report = {name: measure_product(getattr(torch, name)) for name in ("float32", "bfloat16")}
    batch = 2 if settings["guided"] else 1
    report["step"] = count_operations(model, settings["height"] // scale, settings["width"] // scale, batch)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
