"""Puts the weights of a network into a folder of the bundle: by links to the user's files where that is possible, else as copies.

A hard link takes no room and keeps the weights when the user deletes the file. If the file is changed in place, so is the bundle's,
which then does not match its manifest and is refused: a bundle that must not depend on that is written with copies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.error import BundleError
from costroute_rt.export.bundle.tensor_file import copy_regions
from costroute_rt.export.checkpoint.source.network import Network, Region

_SUFFIX = ".safetensors"
_CLONE = 0x40049409
"""FICLONE of Linux's linux/fs.h: share the blocks of another file until one of them is changed."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Bytes that a network's weights take in the bundle."""

    written_bytes: int = 0
    linked_bytes: int = 0
    """Of its own tensors in files that are shared with the user's, by hard links or by shared blocks."""

    def __add__(self, other: Placed) -> Placed:
        return Placed(self.written_bytes + other.written_bytes, self.linked_bytes + other.linked_bytes)


def place_weights(
    network: Network, folder: Path, *, copies: bool, own: Path, on_bytes: Callable[[int], object] = lambda _: None
) -> tuple[Network, Placed]:
    """Put a network's weights into `folder`, an empty one; returns the network with its regions there.

    copies: never link. own: folder of files that were made for this export, which are always linked.
    Raises BundleError for weights that cannot be read, OutputError if copies cannot be written.
    """
    moved, placed, left = dict[str, Region](), Placed(), dict[str, Region]()
    for number, (file, regions) in enumerate(by_file(network).items()):
        target = folder / f"weights{f'-{number + 1}' if number else ''}{_SUFFIX}"
        is_own = file.is_relative_to(own)
        if (is_own or not copies) and is_linkable(file) and _share(file, target):
            count = stored_bytes(regions.values())
            placed += Placed(count, 0) if is_own else Placed(0, count)
            moved |= {name: replace(region, file=target) for name, region in regions.items()}
        else:
            left |= regions
    if left:
        target = folder / f"weights-copy{_SUFFIX}"
        moved |= copy_regions(target, left, on_bytes)
        placed += Placed(target.stat().st_size, 0)
    return replace(network, weights={name: moved[name] for name in network.weights}), placed


def by_file(network: Network) -> dict[Path, dict[str, Region]]:
    """The network's regions by the file that they are in."""
    found: dict[Path, dict[str, Region]] = {}
    for name, region in network.weights.items():
        found.setdefault(region.file, {})[name] = region
    return found


def stored_bytes(regions: Iterable[Region]) -> int:
    """Bytes of these regions, those with several names once."""
    return sum({(region.file, region.offset, region.length): region.length for region in regions}.values())


def is_linkable(file: Path) -> bool:
    """Whether a bundle may have the file as it is: safetensors, by its content (files in the cache of a hub have no extension)."""
    try:
        read_stored_tensors(file)
    except BundleError:
        return False
    return True


def can_share(file: Path, folder: Path) -> bool:
    """Whether a file in `folder` is expected to share the blocks of `file`: they are on the same disk, and this user may link it."""
    state = file.stat()
    is_mine = not hasattr(os, "geteuid") or os.geteuid() in (0, state.st_uid)
    return state.st_dev == folder.stat().st_dev and (is_mine or os.access(file, os.R_OK | os.W_OK))


def _share(file: Path, target: Path) -> bool:
    """Make `target` the same file, or one with the same blocks; False where the disk cannot, or where this user may not."""
    try:
        os.link(file, target)
    except OSError:
        return _clone(file, target)
    return True


def _clone(file: Path, target: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    with open(file, "rb") as source, open(target, "xb") as made:
        try:
            fcntl.ioctl(made.fileno(), _CLONE, source.fileno())
        except OSError:
            target.unlink()
            return False
    return True
