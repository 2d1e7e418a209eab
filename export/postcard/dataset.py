"""Drawn scenes on disk, in shards that are written once each, so that an interrupted run continues with the next shard.

A shard holds SHARD scenes: `images-0007.npy` uint8[SHARD, 256, 256, 3], `masks-0007.npy` uint8[SHARD, 16, 16] (share of each cell inside
objects, 255 = all) and `scenes-0007.json`. Scene i of a dataset depends only on the dataset's name and on i.
"""

import json
import multiprocessing
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costroute_rt.export.postcard.scene import Scene, sample_scene

SHARD = 1000
"""Scenes per shard."""
IMAGE_SIZE = 256
GRID = 16
"""Cells per side of object masks and latents."""


@dataclass(frozen=True)
class Shard:
    """The files of one shard."""

    folder: Path
    number: int

    def path(self, kind: str, ending: str = "npy") -> Path:
        return self.folder / f"{kind}-{self.number:04}.{ending}"

    def array(self, kind: str) -> NDArray[Any]:
        """Opens an array, memory-mapped and read-only."""
        return np.load(self.path(kind), mmap_mode="r")

    def scenes(self) -> list[Scene]:
        return json.loads(self.path("scenes", "json").read_text())

    def save(self, kind: str, array: NDArray[Any]) -> None:
        partial = self.path(kind, "partial.npy")
        np.save(partial, array)
        os.replace(partial, self.path(kind))


def shards(folder: Path, count: int) -> list[Shard]:
    """The shards of `count` scenes."""
    return [Shard(folder, number) for number in range(-(-count // SHARD))]


def draw_scene(dataset: str, index: int, surface: Any = None) -> tuple[Scene, NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns (scene, image uint8[256, 256, 3], mask uint8[16, 16]); surface: a skia surface to reuse."""
    from costroute_rt.export.postcard.painter import box_mask, render

    rng = random.Random(f"{dataset}-{index}")
    scene = sample_scene(rng)
    image, boxes = render(scene, rng, surface)
    return scene, image, np.round(box_mask(boxes, GRID) * 255).astype(np.uint8)


def render_shard(shard: Shard, dataset: str) -> None:
    """Draws and writes one shard; the scenes file is written last and marks the shard as complete."""
    from costroute_rt.export.postcard.painter import new_surface

    surface = new_surface()
    drawn = [draw_scene(dataset, shard.number * SHARD + i, surface) for i in range(SHARD)]
    shard.save("images", np.stack([image for _, image, _ in drawn]))
    shard.save("masks", np.stack([mask for _, _, mask in drawn]))
    shard.path("scenes", "json").write_text(json.dumps([scene for scene, _, _ in drawn], separators=(",", ":")))


def render_dataset(folder: Path, dataset: str, count: int, processes: int) -> Iterator[Shard]:
    """Draws `count` scenes (rounded up to whole shards) and yields each shard when it is complete; existing shards are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    all_shards = shards(folder, count)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        missing = [shard for shard in all_shards if not shard.path("scenes", "json").exists()]
        pending = {shard: pool.apply_async(render_shard, (shard, dataset)) for shard in missing}
        for shard in all_shards:
            if shard in pending:
                pending[shard].get()
            yield shard
