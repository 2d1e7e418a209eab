"""The check of a candidate by its images: the same prompts and seeds through the real loop, against exact weights or a higher precision.

An error of a graph's outputs says little about images: it is fed back from row to row. What is compared is the latent after the last row
(PSNR) and the decoded pixels (SSIM); the worst image counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from costroute_rt.candidate import Candidate
from costroute_rt.engines.bundle.image_gate import ImageGate
from costroute_rt.engines.bundle.name import Size
from costroute_rt.family.conditioning import Tensors, stack_rows, token_tensors
from costroute_rt.family.engine_set import run_on_host
from costroute_rt.family.family import Family
from costroute_rt.family.plan import Plan
from costroute_rt.generation.loop import Denoiser, Run
from costroute_rt.generation.similarity import psnr_db, ssim
from costroute_rt.request import Request
from costroute_rt.sampling.noise import NoiseStream

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

PROMPTS = ("a red house by a lake with snowy mountains behind", "a white sailboat on the sea at sunset")
"""Image i is made from seed i."""
MOST_STEPS = 4
"""More steps take more time, and differ less: later rows correct what earlier ones did."""
SMALL_SIDE_PX = 128
"""Images of models whose usual images are larger than `LARGE_PX` are made in this size where their graphs allow it."""
LARGE_PX = 256 * 256

OpenEngine = Callable[[str], "Engine"]
"""Opens the engine of a name; the gate closes it."""


@dataclass(frozen=True, slots=True)
class Image:
    """What one run made."""

    latent: npt.NDArray[np.float32]
    pixels: npt.NDArray[np.uint8]
    """uint8[height, width, 3]."""


def compare_images(
    family: Family,
    candidate: Candidate,
    open_engine: OpenEngine,
    exact: Candidate,
    open_exact: OpenEngine,
    *,
    size: Size,
    reference: str,
    images: int = len(PROMPTS),
    most_steps: int = MOST_STEPS,
    on_run: Callable[[], object] = lambda: None,
) -> ImageGate:
    """Make the images of both and compare them; on_run is called before each run of an engine, and what it raises ends the work.

    exact: the candidate to compare with, of the same latents. images: how many, two at most. Raises EngineError.
    """
    plans = [_short_plan(family, each, size, most_steps) for each in (exact, candidate)]
    openers, prompts = (open_exact, open_engine), PROMPTS[:images]
    wanted, found = (make_images(family, plan, opener, prompts, on_run) for plan, opener in zip(plans, openers, strict=True))
    pairs = list(zip(wanted, found, strict=True))
    return ImageGate(
        reference=reference,
        latent_psnr_db=round(min(psnr_db(one.latent, other.latent) for one, other in pairs), 3),
        ssim=round(min(ssim(one.pixels, other.pixels) for one, other in pairs), 5),
        images=len(pairs),
        height=size[0],
        width=size[1],
        num_inference_steps=plans[1].candidate.num_inference_steps,
    )


def gate_size(family: Family, candidate: Candidate) -> Size:
    """The size of the images: small for a model of large ones, unless its graphs take one size only."""
    bundle, image = family.bundle, family.bundle.image
    component = bundle.components[candidate.denoiser]
    latent = bundle.graphs[component.graphs[component.step_graph(candidate.guidance_scale)]].inputs["latent"].shape
    is_fixed = any(isinstance(axis, int) for axis in latent[2:])
    return (image.height, image.width) if is_fixed or image.height * image.width <= LARGE_PX else (SMALL_SIDE_PX, SMALL_SIDE_PX)


def make_images(
    family: Family, plan: Plan, open_engine: OpenEngine, prompts: Sequence[str] = PROMPTS, on_run: Callable[[], object] = lambda: None
) -> list[Image]:
    """One image for each prompt, from the seeds 0, 1 and so on. Engines are open one at a time, so that the largest decides the memory."""
    conditions = _conditions(family, plan, open_engine, prompts, on_run)
    with open_engine(plan.step.engine) as engine:
        latents = [_denoise(engine, plan, tensors, seed, on_run) for seed, tensors in enumerate(conditions)]
    with open_engine(plan.decode.engine) as engine:
        return [Image(latent, np.asarray(run_on_host(engine, {"latent": latent})["pixels"])[0]) for latent in latents]


def _short_plan(family: Family, candidate: Candidate, size: Size, most_steps: int) -> Plan:
    steps = min(candidate.num_inference_steps, most_steps)
    return family.plan(replace(candidate, name=f"{candidate.name} in {steps}", num_inference_steps=steps), size)


def _conditions(family: Family, plan: Plan, open_engine: OpenEngine, prompts: Sequence[str], on_run: Callable[[], object]) -> list[Tensors]:
    """What the steps take besides the latent, for each prompt."""
    texts = [family.texts(Request(prompt=prompt), plan) for prompt in prompts]
    positive = [token_tensors(family.tokenizers, each.prompt, plan.sources) for each in texts]
    negative = [None if each.negative is None else token_tensors(family.tokenizers, each.negative, plan.sources) for each in texts]
    for encoder, call in plan.encoders.items():
        tokenizer = str(family.bundle.components[encoder].tokenizer)
        with open_engine(call.engine) as engine:
            for each, ours, theirs in zip(texts, positive, negative, strict=True):
                on_run()
                encoded = family.encode(encoder, {tokenizer: each.prompt[tokenizer].chunk(0)}, engine)
                ours |= encoded
                if theirs is not None and each.negative is not None:
                    zeros = {name: np.zeros_like(array) for name, array in encoded.items()}
                    theirs |= zeros if each.has_zeros else family.encode(encoder, {tokenizer: each.negative[tokenizer].chunk(0)}, engine)
    stacked = [stack_rows(*sides, plan.sources, plan.size) for sides in zip(positive, negative, strict=True)]
    if plan.condition is None:
        return stacked
    with open_engine(plan.condition.engine) as engine:
        return [{**each, **run_on_host(engine, {name: each[name] for name in engine.inputs})} for each in stacked]


def _denoise(engine: Engine, plan: Plan, tensors: Tensors, seed: int, on_run: Callable[[], object]) -> npt.NDArray[np.float32]:
    conditions = {name: engine.to_device(array) for name, array in tensors.items() if name in engine.inputs}
    noise = NoiseStream([seed], plan.latent_shape)
    run = Run(Denoiser(engine, conditions), plan.scheduler, plan.table, noise.draw, clock=time.monotonic)
    while run.left:
        on_run()
        run.advance()
    return np.asarray(engine.to_host(run.latent))
