"""A tiny Stable Diffusion 1.5, exported and run here, against diffusers: weighted prompts, image to image, inpainting.

The text states of a weighted prompt are computed by the rule of AUTOMATIC1111's web UI, from the pieces and weights stated here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import Runtime
from costroute_rt.result import Result
from costroute_rt.sampling.noise import NoiseStream
from tests.checkpoints import write_sd15_folder
from tests.export.small_checkpoint import needs_export

pytestmark = needs_export
PROMPT, NEGATIVE = "a (red:1.4) fox BREAK [in] ((the))", "the (cat:1.3)"
CHUNKS = [[("a ", 1.0), ("red", 1.4), (" fox", 1.0)], [("in", 1 / 1.1), (" ", 1.0), ("the", 1.21)]]
NEGATIVE_CHUNKS = [[("the ", 1.0), ("cat", 1.3)], []]
STEPS, SCALE, SEED, TOKENS = 4, 7.0, 3, 77
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
LEFT = np.zeros((64, 64), np.uint8)
LEFT[:, :40] = 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd15_folder(tmp_path_factory.mktemp("parity") / "sd15")


@pytest.fixture(scope="module")
def runtime(folder: Path) -> Iterator[Runtime]:
    from costroute_rt.export.bundle.export import export_model
    from costroute_rt.export.bundle.options import ExportOptions
    from costroute_rt.export.checkpoint.source.diffusers_folder import open_folder

    bundle = folder.parent / "bundle"
    export_model(open_folder(folder), bundle, ExportOptions(steps=(STEPS,)))
    with Runtime.open(bundle, home=folder.parent / "home", build=True, init_images=True, threads=1) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace", steps_offset=0)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ask(runtime: Runtime, **how: Any) -> Result:
    return runtime.generate(PROMPT, negative_prompt=NEGATIVE, seed=SEED, scheduler="Euler", **how)


def states(pipeline: Any, chunks: list[list[tuple[str, float]]]) -> Any:
    """float32[1, tokens, width] of all chunks, by the web UI's rule."""
    import torch

    tokenizer, found = pipeline.tokenizer, []
    for chunk in chunks:
        pairs = [(token, weight) for text, weight in chunk for token in tokenizer(text, add_special_tokens=False).input_ids]
        ids = [tokenizer.bos_token_id, *(token for token, _ in pairs), tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (TOKENS - len(ids))
        weights = torch.ones(TOKENS)
        weights[1 : 1 + len(pairs)] = torch.tensor([weight for _, weight in pairs])
        with torch.no_grad():
            z = pipeline.text_encoder(torch.tensor([ids])).last_hidden_state
        weighted = z * weights[None, :, None]
        found.append(weighted * (z.mean() / weighted.mean()))
    return torch.cat(found, dim=1)


def run_diffusers(pipeline: Any, name: str, monkeypatch: pytest.MonkeyPatch, **how: Any) -> np.ndarray:
    """uint8[64, 64, 3] of the pipeline class, with the noise of our seed and the mean of the VAE's distribution."""
    import diffusers
    import torch

    kind = getattr(diffusers, name)
    other = kind.from_pipe(pipeline)
    other.set_progress_bar_config(disable=True)
    noise, module = NoiseStream([SEED], (4, 8, 8)), sys.modules[kind.__module__]
    monkeypatch.setattr(module, "retrieve_latents", lambda found, **_: found.latent_dist.mode(), raising=False)
    monkeypatch.setattr(module, "randn_tensor", lambda *_args, **_settings: torch.from_numpy(noise.draw()), raising=False)
    if name == "StableDiffusionPipeline":
        how |= {"latents": torch.from_numpy(noise.draw()), "height": 64, "width": 64}
    embeds = {"prompt_embeds": states(pipeline, CHUNKS), "negative_prompt_embeds": states(pipeline, NEGATIVE_CHUNKS)}
    made = other(**embeds, **how, num_inference_steps=STEPS, guidance_scale=SCALE, output_type="np")
    return np.asarray(np.rint(made.images[0] * 255), dtype=np.uint8)


def assert_near(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert len(np.unique(theirs)) > 20
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_a_weighted_prompt_of_two_chunks(runtime: Runtime, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = run_diffusers(pipeline, "StableDiffusionPipeline", monkeypatch)
    assert_near(ask(runtime).pixels[0], theirs)
    plain = runtime.generate("a red fox in the", negative_prompt="the cat", seed=SEED, scheduler="Euler").pixels[0]
    assert np.abs(plain.astype(int) - theirs).max() > 5


def test_image_to_image(runtime: Runtime, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    theirs = run_diffusers(pipeline, "StableDiffusionImg2ImgPipeline", monkeypatch, image=Image.fromarray(IMAGE), strength=0.6)
    assert_near(ask(runtime, init_image=IMAGE, strength=0.6).pixels[0], theirs)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting(runtime: Runtime, pipeline: Any, monkeypatch: pytest.MonkeyPatch, strength: float) -> None:
    from PIL import Image

    how = {"image": Image.fromarray(IMAGE), "mask_image": Image.fromarray(LEFT), "height": 64, "width": 64}
    theirs = run_diffusers(pipeline, "StableDiffusionInpaintPipeline", monkeypatch, strength=strength, **how)
    ours = ask(runtime, init_image=IMAGE, mask=LEFT, strength=strength).pixels[0]
    assert_near(ours[:, :40], theirs[:, :40])
    np.testing.assert_array_equal(ours[:, 40:], IMAGE[:, 40:])
