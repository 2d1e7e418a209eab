"""Which engines candidates call, in which order and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.family.calls import candidate_names, engine_names, image_calls

START, END = "tiny/text_encoder/encode", "tiny/vae/decode"


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


def test_the_pool_needs_each_engine_once(bundle: Bundle) -> None:
    assert engine_names(bundle) == [START, "tiny/turbo/step", "tiny/base/condition", "tiny/base/guided_step", END]


def test_a_candidate_needs_its_own_denoiser(bundle: Bundle) -> None:
    names = candidate_names(bundle)
    assert names["tiny-turbo@1"] == [START, "tiny/turbo/step", END]
    assert names["tiny-base@4"] == [START, "tiny/base/condition", "tiny/base/guided_step", END]


def test_images_are_those_of_the_fastest_candidate_of_each_choice_of_engines(bundle: Bundle) -> None:
    assert image_calls(bundle) == {
        "tiny-turbo@1": [(START, 1), ("tiny/turbo/step", 1), (END, 1)],
        "tiny-base@4": [(START, 1), ("tiny/base/condition", 1), ("tiny/base/guided_step", 4), (END, 1)],
    }
