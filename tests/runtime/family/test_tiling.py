"""Tiles of a latent: that they cover it, that blending adds up, and that no seam is left."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from costroute_rt.family.tiling import Latent, Pixels, blend_weights, decode_tiles, find_tiling

SIZES = [(128, 128), (91, 91), (127, 73), (64, 129), (33, 256), (8, 2000), (3, 5000)]


@pytest.mark.parametrize("most", [1.0, 2.0])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_cover_a_latent_of_any_size_and_are_small(height: int, width: int, most: float) -> None:
    tiling = find_tiling(height, width, (64, 64), most)
    assert (tiling is None) == (height * width <= most * 64 * 64)
    if tiling is None:
        return
    assert tiling.height * tiling.width <= most * 64 * 64
    for length, tile, starts in ((height, tiling.height, tiling.tops), (width, tiling.width, tiling.lefts)):
        assert (starts[0], starts[-1] + tile) == (0, length)
        assert max(np.diff(starts), default=0) <= math.ceil(0.75 * tile)
    assert len(tiling) == len(tiling.tops) * len(tiling.lefts)


def test_no_tile_is_smaller_than_the_least() -> None:
    tiling = find_tiling(128, 100, (64, 64), 1.0, (60, 64))
    assert tiling is not None
    assert (tiling.height, tiling.tops) == (60, (0, 34, 68))
    assert (tiling.width, tiling.lefts) == (64, (0, 36))


@pytest.mark.parametrize("usual", [1, 2, 5, 64])
@pytest.mark.parametrize("scale", [1, 8])
def test_the_weights_of_every_pixel_add_up_to_one(usual: int, scale: int) -> None:
    for length in (65, 100, 193):
        tiling = find_tiling(length, length, (usual, usual), 1.0)
        assert tiling is not None
        weights, total = blend_weights(tiling.lefts, tiling.width, scale), np.zeros(length * scale)
        assert (weights >= 0).all()
        for row, start in zip(weights, tiling.lefts, strict=True):
            total[scale * start : scale * (start + tiling.width)] += row
        np.testing.assert_allclose(total, 1, atol=1e-6)


def make_decoder(reach: int, scale: int = 4) -> Any:
    """A decoder whose pixels depend on `reach` cells to each side, and outside the latent on zeros."""
    rng = np.random.default_rng(3)
    kernel = rng.normal(0, 1 / (2 * reach + 1), (3, 2 * reach + 1, 2 * reach + 1))

    def decode(latent: Latent) -> Pixels:
        height, width = latent.shape[2:]
        padded = np.pad(latent[0], ((0, 0), (reach, reach), (reach, reach)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[1:], axis=(1, 2))
        planes = np.einsum("chwij,cij->chw", windows, kernel)
        levels = np.clip(127.5 + 60 * planes, 0, 255).round().astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 0).repeat(scale, axis=0).repeat(scale, axis=1))[None].reshape(
            1, height * scale, width * scale, 3
        )

    return decode


def seams(latent: npt.NDArray[np.float32], reach: int) -> npt.NDArray[np.int64]:
    """Difference from the image that is decoded in one."""
    tiling = find_tiling(*latent.shape[2:], (32, 32), 2.0)  # type: ignore[arg-type]
    assert tiling is not None
    decode = make_decoder(reach)
    found, whole = decode_tiles(latent, tiling, 4, decode), decode(latent)
    assert found.dtype == whole.dtype
    assert found.shape == whole.shape
    return np.abs(found.astype(np.int64) - whole)


@pytest.mark.parametrize("shape", [(64, 64), (50, 61), (20, 150)])
def test_no_seam_is_left_by_a_decoder_that_reaches_less_far_than_the_edge_of_the_overlap(shape: tuple[int, int]) -> None:
    latent = np.random.default_rng(1).normal(size=(1, 3, *shape)).astype(np.float32)
    assert seams(latent, 2).max() <= 1


def test_a_decoder_that_reaches_further_differs_only_around_the_overlap() -> None:
    latent = np.random.default_rng(1).normal(size=(1, 3, 64, 64)).astype(np.float32)
    found = seams(latent, 6)
    assert found.max() > 2  # so the test above can fail
    assert (found > 1).mean() < 0.3


def test_tones_that_differ_between_tiles_pass_into_each_other_without_a_step() -> None:
    tiling = find_tiling(64, 64, (32, 32), 2.0)
    assert tiling is not None
    tones = iter(np.linspace(60, 180, len(tiling)).astype(np.uint8).tolist())
    image = decode_tiles(
        np.zeros((1, 4, 64, 64), np.float32),
        tiling,
        8,
        lambda cells: np.full((1, 8 * cells.shape[2], 8 * cells.shape[3], 3), next(tones), np.uint8),
    )
    steps = [np.abs(np.diff(image[0].astype(int), axis=axis)).max() for axis in (0, 1)]
    assert max(steps) <= 3
    assert {int(image.min()), int(image.max())} == {60, 180}
