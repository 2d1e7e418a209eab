"""The tensors of one network in a single file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Region

MOST = 256
"""Of layers and blocks that are counted."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The tensors whose names begin with the prefix of a network, by the rest of their names."""

    tensors: Mapping[str, Region]
    prefix: str
    path: Path

    @classmethod
    def select(cls, tensors: Mapping[str, Region], prefix: str, path: Path) -> Stored:
        return cls({name.removeprefix(prefix): region for name, region in tensors.items() if name.startswith(prefix)}, prefix, path)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def axis(self, name: str, axis: int) -> int:
        """The length of an axis of a tensor; raises BundleError if it does not have it."""
        region = self.tensors.get(name)
        if region is None:
            raise BundleError(self.path, f"its tensor {self.prefix}{name} is missing", "download the checkpoint again")
        if len(region.shape) <= axis:
            problem = f"its tensor {self.prefix}{name} has the shape {region.shape}"
            raise BundleError(self.path, problem, "download the checkpoint again, or use its diffusers folder")
        return region.shape[axis]

    def count(self, form: str) -> int:
        """How many of the tensors `form` with 0, 1, 2 ... in the place of {} there are."""
        return next((index for index in range(MOST) if form.format(index) not in self.tensors), MOST)


def third(region: Region, part: int) -> Region:
    """One of three equal ranges of rows, as fused projections of query, key and value have them."""
    if not region.shape or region.shape[0] % 3 or region.is_transposed:
        return replace(region, dtype=f"{region.dtype} that cannot be divided by three")
    shape, length = (region.shape[0] // 3, *region.shape[1:]), region.length // 3
    return replace(region, offset=region.offset + part * length, length=length, shape=shape)
