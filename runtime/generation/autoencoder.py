"""Engine runs between pixels and latents: an initial image is encoded, a finished latent decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.family.plan import Plan
from costroute_rt.family.tiling import decode_tiles
from costroute_rt.generation.engine_use import EngineUse
from costroute_rt.generation.source import Source
from costroute_rt.generation.stopwatch import Stopwatch
from costroute_rt.request import Request

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

Pixels = npt.NDArray[np.uint8]


def encode_source(request: Request, plan: Plan, engines: EngineUse, watch: Stopwatch) -> Source | None:
    """The request's initial image at its size, with its latent; None without one."""
    image, mask, strength = request.source, request.source_mask, request.used_strength
    if image is None or strength is None or plan.encode is None:
        return None
    engines.enter_phase(plan.encode.engine)
    engine = engines.get(plan.encode.engine)
    pixels = image.fit(*plan.size)
    with watch.stage("encode") as lap:
        latent = np.asarray(engine.to_host(engine.run({"pixels": engine.to_device(pixels[None])})["latent"]))
    engines.note_run(plan.encode, lap.ms)
    return Source(latent=latent, pixels=pixels, mask=None if mask is None else mask.fit_mask(image, *plan.size), strength=strength)


def decode(latent: Any, maker: str, plan: Plan, engines: EngineUse, watch: Stopwatch) -> Pixels:
    """Decode a latent to uint8[1, height, width, 3] in host memory.

    latent: in the memory of the device of the engine called `maker`, which made it.
    """
    engines.enter_phase(plan.decode.engine)
    engine = engines.get(plan.decode.engine)
    with watch.stage("decode") as lap:
        latent = engines.lease.move(latent, maker, plan.decode.engine)
        if plan.tiling is not None:
            cells = np.asarray(engine.to_host(latent))
            scale = plan.size[0] // cells.shape[2]
            return decode_tiles(cells, plan.tiling, scale, lambda tile: _decode_tile(tile, engine, plan, engines, watch))
        pixels = np.asarray(engine.to_host(engine.run({"latent": latent})["pixels"]))
    engines.note_run(plan.decode, lap.ms)
    return pixels


def _decode_tile(latent: npt.NDArray[Any], engine: Engine, plan: Plan, engines: EngineUse, watch: Stopwatch) -> Pixels:
    started_s = watch.clock()
    pixels = np.asarray(engine.to_host(engine.run({"latent": engine.to_device(latent)})["pixels"]))
    engines.note_run(plan.decode, (watch.clock() - started_s) * 1000)
    return pixels
