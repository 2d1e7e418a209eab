"""A family that exists nowhere else runs by its data alone: nothing in the runtime or the engines knows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from costroute_rt import Runtime
from tests.patchwork_bundle import reference, write_patchwork_bundle

PROMPT = "a red house by a green lake"


@pytest.fixture(scope="module")
def patchwork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patchwork_bundle(tmp_path_factory.mktemp("patchwork") / "bundle").root


@pytest.fixture(scope="module")
def runtime(patchwork: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    opened = Runtime.open(patchwork, home=tmp_path_factory.mktemp("home"), build=True, threads=1)
    yield opened
    opened.close()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96)])
@pytest.mark.parametrize(("candidate", "steps", "decoder"), [("patchwork@2", 2, "tiny"), ("patchwork@4", 4, "full")])
def test_its_image_is_the_reference_in_numpy(runtime: Runtime, candidate: str, steps: int, decoder: str, height: int, width: int) -> None:
    found = runtime.generate(PROMPT, candidate=candidate, seed=5, height=height, width=width).pixels[0]
    expected = reference(PROMPT, seed=5, steps=steps, guidance_scale=3.5, decoder=decoder, size=(height, width))
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1  # a value between two levels may be rounded either way
    assert (difference == 0).mean() > 0.99
    assert np.ptp(expected) > 60


def test_the_size_of_the_image_changes_what_is_drawn(runtime: Runtime) -> None:
    square, wide = (runtime.generate(PROMPT, candidate="patchwork@4", seed=5, width=width).pixels[0] for width in (64, 96))
    assert np.abs(square.astype(int) - wide[:, :64]).max() > 5


def test_a_carried_latent_changes_the_steps(runtime: Runtime) -> None:
    """UniPC and Euler start from the same noise and see the same text; only their tables differ."""
    euler, unipc = (runtime.generate(PROMPT, candidate=name, seed=5).pixels[0] for name in ("patchwork@4", "patchwork-unipc@4"))
    assert unipc.shape == euler.shape
    assert np.abs(euler.astype(int) - unipc).max() > 1


def test_both_encoders_and_both_decoders_are_built_and_called(runtime: Runtime) -> None:
    names = {f"patchwork/{name}" for name in ("text_encoder/encode", "text_encoder_2/encode", "denoiser/condition", "denoiser/step")}
    assert set(runtime._resources.engines._resident) >= names | {"patchwork/full/decode", "patchwork/tiny/decode"}


def test_the_words_of_each_encoder_matter(runtime: Runtime) -> None:
    """`by` is in both vocabularies, so another word changes what both encoders read; a word unknown to them is one token."""
    first, second = (
        runtime.generate(prompt, candidate="patchwork@2", seed=5).pixels for prompt in (PROMPT, PROMPT.replace("red", "green"))
    )
    assert (first != second).any()
