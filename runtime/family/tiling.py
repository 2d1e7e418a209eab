"""Tiles: a large latent is decoded in overlapping parts of one size, so that the decoder's memory does not grow with the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Latent = npt.NDArray[np.floating]
Pixels = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float32]

OVERLAP = 0.25
"""Least share of a tile that the next one covers too, before rounding to whole cells (as diffusers' `tile_overlap_factor`)."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a latent is cut into rows and columns of tiles; all lengths are in latent cells."""

    height: int
    width: int
    """Of each tile."""
    tops: tuple[int, ...]
    """First cell of each row of tiles."""
    lefts: tuple[int, ...]
    """First cell of each column of tiles."""

    def __len__(self) -> int:
        """The number of tiles."""
        return len(self.tops) * len(self.lefts)


def find_tiling(height: int, width: int, usual: tuple[int, int], most: float, least: tuple[int, int] = (1, 1)) -> Tiling | None:
    """The tiles of a latent; None if its area is at most `most` times the usual one, which no tile exceeds.

    usual: height and width of the latent for which the decoder is made. least: those of the smallest tile, at most the usual ones.
    """
    if height * width <= most * usual[0] * usual[1]:
        return None
    longest = (max(int(math.sqrt(most) * each), 1) for each in usual)
    rows, columns = map(_cut, (height, width), longest, least)
    return Tiling(rows[0], columns[0], rows[1], columns[1])


def _cut(length: int, most: int, least: int) -> tuple[int, tuple[int, ...]]:
    """Length of the tiles along one axis, and their first cells: as few tiles as possible, each as short as possible."""
    count = 1
    while (tile := max(math.ceil(length / (count - (count - 1) * OVERLAP)), least)) > most:
        count += 1
    return tile, tuple(index * (length - tile) // max(count - 1, 1) for index in range(count))


def blend_weights(starts: tuple[int, ...], tile: int, scale: int) -> Weights:
    """float32[tiles, tile * scale]: weight of each pixel of each tile along one axis; those of one pixel of the image add up to 1.

    It falls linearly to the next tile in the middle half of what both cover: at its own edges, where a tile lacks its surroundings most, it
    counts nothing. scale: pixels per latent cell.
    """
    rows = []
    for index, start in enumerate(starts):
        pixels = scale * start + np.arange(tile * scale, dtype=np.float64) + 0.5
        rise = _rise(pixels, scale * start, scale * (starts[index - 1] + tile)) if index else 1.0
        fall = _rise(pixels, scale * starts[index + 1], scale * (start + tile)) if index + 1 < len(starts) else 0.0
        rows.append(np.broadcast_to(rise - fall, pixels.shape))
    return np.array(rows, dtype=np.float32)


def _rise(pixels: npt.NDArray[np.floating], begin: int, end: int) -> npt.NDArray[np.floating]:
    """From 0 to 1 in the middle half of begin..end."""
    quarter = max((end - begin) / 4, 1e-6)
    rise: npt.NDArray[np.floating] = np.clip((pixels - begin - quarter) / (2 * quarter), 0.0, 1.0)
    return rise


def decode_tiles(latent: Latent, tiling: Tiling, scale: int, decode: Callable[[Latent], Pixels]) -> Pixels:
    """uint8[1, height * scale, width * scale, 3]: the tiles of a latent, decoded one after the other and blended.

    latent: float[1, channels, height, width]. decode: from such a latent of the size of a tile to its uint8[1, h, w, 3].
    Floating-point pixels are kept for one row of tiles only.
    """
    height, width = (scale * length for length in latent.shape[2:])
    across = blend_weights(tiling.lefts, tiling.width, scale)
    image, band = np.empty((1, height, width, 3), dtype=np.uint8), np.zeros((scale * tiling.height, width, 3), dtype=np.float32)
    for down, top, after in zip(
        blend_weights(tiling.tops, tiling.height, scale), tiling.tops, (*tiling.tops[1:], latent.shape[2]), strict=True
    ):
        for weights, left in zip(across, tiling.lefts, strict=True):
            cells = np.ascontiguousarray(latent[:, :, top : top + tiling.height, left : left + tiling.width])
            band[:, scale * left : scale * (left + tiling.width)] += np.outer(down, weights)[..., None] * decode(cells)[0]
        final = scale * (after - top)
        image[0, scale * top : scale * after] = np.rint(band[:final])
        band = np.concatenate([band[final:], np.zeros_like(band[:final])])
    return image
