"""A family that exists only in the tests runs from its bundle alone, without code for it in the runtime or the engines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import Runtime
from tests.changed_bundle import change_bundle, rename_tensors
from tests.patchwork_bundle import UNKNOWN, guided_reference, reference, write_patchwork_bundle

PROMPT = "a red house by a green lake"


@pytest.fixture(scope="module")
def patchwork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patchwork_bundle(tmp_path_factory.mktemp("patchwork") / "bundle").root


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def runtime(patchwork: Path, home: Path) -> Iterator[Runtime]:
    with Runtime.open(patchwork, home=home, build=True, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def empty_text(patchwork: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """The same family with the encoded empty text in place of a missing negative prompt."""
    target = tmp_path_factory.mktemp("empty") / "bundle"
    bundle = change_bundle(patchwork, target, lambda manifest, _: manifest.update(negative_prompt="empty_text"))
    with Runtime.open(bundle.root, home=home, build=True, threads=1) as opened:
        yield opened


def check_equal(found: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1  # a value between two levels may be rounded either way
    assert (difference == 0).mean() > 0.99
    assert np.ptp(expected) > 60


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96)])
@pytest.mark.parametrize(("candidate", "steps", "decoder"), [("patchwork@2", 2, "tiny"), ("patchwork@4", 4, "full")])
def test_images_equal_the_numpy_reference(runtime: Runtime, candidate: str, steps: int, decoder: str, height: int, width: int) -> None:
    found = runtime.generate(PROMPT, candidate=candidate, seed=5, height=height, width=width).pixels[0]
    expected = reference(PROMPT, seed=5, steps=steps, guidance_scale=3.5, decoder=decoder, size=(height, width))
    check_equal(found, expected)


def test_the_image_size_is_part_of_the_conditioning(runtime: Runtime) -> None:
    square, wide = (runtime.generate(PROMPT, candidate="patchwork@4", seed=5, width=width).pixels[0] for width in (64, 96))
    assert np.abs(square.astype(int) - wide[:, :64]).max() > 5


def test_unipc_and_euler_give_different_images(runtime: Runtime) -> None:
    """UniPC carries a latent, Euler does not; noise and text are the same, so only the step tables differ."""
    euler, unipc = (runtime.generate(PROMPT, candidate=name, seed=5).pixels[0] for name in ("patchwork@4", "patchwork-unipc@4"))
    assert unipc.shape == euler.shape
    assert np.abs(euler.astype(int) - unipc).max() > 1


def test_both_encoders_and_both_decoders_are_built_and_called(runtime: Runtime) -> None:
    names = {f"patchwork/{name}" for name in ("text_encoder/encode", "text_encoder_2/encode", "denoiser/condition", "denoiser/step")}
    assert set(runtime._resources.engines._resident) >= names | {"patchwork/full/decode", "patchwork/tiny/decode"}


@pytest.mark.parametrize(("encoder", "pair"), [("words", UNKNOWN["letters"]), ("letters", UNKNOWN["words"])])
@pytest.mark.parametrize("candidate", ["patchwork@4", "guided@4"])
def test_another_word_that_only_one_encoder_knows_changes_the_image(
    runtime: Runtime, candidate: str, encoder: str, pair: tuple[str, str]
) -> None:
    tokenizers = runtime._resources.main_family.tokenizers
    first, second = (PROMPT.replace("lake", word) for word in pair)  # the condition reads the last state of the first encoder
    differ = {name for name, each in tokenizers.items() if (each.encode(first).ids != each.encode(second).ids).any()}
    assert differ == {encoder}
    images = [runtime.generate(prompt, candidate=candidate, seed=5).pixels.astype(int) for prompt in (first, second)]
    assert np.abs(images[0] - images[1]).max() > 1


@pytest.mark.parametrize("negative_prompt", [None, "", "moon tree"])
@pytest.mark.parametrize("candidate", ["guided@4", "guided-unipc@4"])
@pytest.mark.parametrize("uses_zeros", [True, False])
def test_guided_images_equal_the_numpy_reference(
    runtime: Runtime, empty_text: Runtime, uses_zeros: bool, candidate: str, negative_prompt: str | None
) -> None:
    opened = runtime if uses_zeros else empty_text
    family = opened._resources.main_family
    table = family.plan(next(each for each in family.pool if each.name == candidate), (64, 96)).table
    expected = guided_reference(
        PROMPT, negative_prompt or "", uses_zeros=uses_zeros and negative_prompt is None, seed=7, table=table, guidance_scale=3.5,
        size=(64, 96),
    )  # fmt: skip
    found = opened.generate(PROMPT, candidate=candidate, seed=7, negative_prompt=negative_prompt, width=96).pixels[0]
    check_equal(found, expected)


def test_zeros_empty_and_other_negative_prompts_give_different_images(runtime: Runtime) -> None:
    images = [runtime.generate(PROMPT, candidate="guided@4", seed=7, negative_prompt=text).pixels for text in (None, "", "moon tree")]
    for first, second in combinations(images, 2):
        assert np.abs(first.astype(int) - second).max() > 1


def test_names_of_tensors_and_components_may_have_dots(patchwork: Path, runtime: Runtime, tmp_path: Path) -> None:
    def rename(manifest: dict[str, Any], root: Path) -> None:
        components = manifest["components"]
        manifest["components"] = {"text.encoder": components.pop("text_encoder"), **components}
        rename_tensors(manifest, root, "text_encoder/encode.onnx", {"states": "hidden_states.1"})
        for folder in ("denoiser", "guided"):
            rename_tensors(manifest, root, f"{folder}/condition.onnx", {"text_encoder.states": "text.encoder.hidden_states.1"})

    bundle = change_bundle(patchwork, tmp_path / "bundle", rename)
    with Runtime.open(bundle.root, home=tmp_path / "home", build=True, threads=1) as dotted:
        for candidate in ("patchwork@4", "guided@4"):
            pixels = [each.generate(PROMPT, candidate=candidate, seed=5).pixels.astype(int) for each in (runtime, dotted)]
            assert np.abs(pixels[0] - pixels[1]).max() <= 1
