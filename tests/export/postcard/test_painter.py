"""Drawings are reproducible, have the right size, and their boxes become masks."""

import random

import numpy as np
import pytest

pytest.importorskip("skia", reason="drawing needs skia-python (the export extra)")

from costroute_rt.export.postcard.painter import box_mask, render
from costroute_rt.export.postcard.scene import ATTRIBUTES, sample_scene

pytestmark = pytest.mark.export


def test_the_same_seed_gives_the_same_drawing() -> None:
    scene = sample_scene(random.Random(1))
    first, second = (render(scene, random.Random(2))[0] for _ in range(2))
    assert first.shape == (256, 256, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)


def test_every_value_can_be_drawn() -> None:
    rng = random.Random("values")
    missing = {(name, value) for name, values in ATTRIBUTES.items() for value in values}
    while missing:
        scene = sample_scene(rng)
        new = missing & set(scene.items())
        if new:
            image, _ = render(scene, rng)
            assert image.std() > 3
            missing -= new


def test_a_box_covers_the_cells_of_its_mask() -> None:
    mask = box_mask([("house", 0.0, 0.0, 8.0, 16.0)], 16)
    assert mask.shape == (16, 16)
    assert mask[0, 0] == mask[1, 0] == 1
    assert mask.sum() == 2
