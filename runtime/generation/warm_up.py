"""First calls, made before anybody waits for them."""

from __future__ import annotations

import numpy as np

from costroute_rt.family.conditioning import as_text_states, condition_text, encode_text
from costroute_rt.family.parts import Parts
from costroute_rt.generation.loop import Denoiser


def warm_up(parts: Parts) -> None:
    """Load every engine of pool and router and call it once at the default size; keeps the states of the empty negative prompt.

    A first call allocates memory and fills caches, and takes a multiple of the next ones' time.
    """
    image, engines, size = parts.bundle.image, parts.engines, parts.profiles.first(parts.bundle)
    shape = (1, image.latent_channels, size[0] // image.vae_scale_factor, size[1] // image.vae_scale_factor)
    tokens = parts.tokenizer.encode("")
    states = encode_text(engines.get(parts.encode), tokens)
    parts.negatives.put("", states)
    if parts.quality.engines:
        parts.quality.judge("", as_text_states(states, tokens))
    called = set()
    for candidate in parts.pool:
        step, decode = (parts.at(name, size) for name in (parts.step(candidate), parts.decode(candidate)))
        engine = engines.get(step)
        latent = parts.zeros.get(engine, shape)
        if step not in called:
            both = np.concatenate([states, states]) if candidate.is_guided else states
            scale = candidate.guidance_scale if candidate.is_guided else None
            row = parts.tables.table(candidate).row(0).astype(np.float32)
            condition = parts.condition(candidate)
            if condition:
                made = condition_text(engines.get(condition), both)
                conditions = {name: engines.move(value, condition, step) for name, value in made.items()}
            else:
                conditions = {"text_states": engine.to_device(both)}
            Denoiser(engine, conditions, guidance_scale=scale)(latent, latent, latent, row)
        if decode not in called:
            decoder = engines.get(decode)
            decoder.to_host(decoder.run({"latent": engines.move(latent, step, decode)})["pixels"])
        called |= {step, decode}
