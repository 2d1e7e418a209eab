"""Shape profiles: the sizes of images that engines are built for.

A bundle of one size has engines that know every length. Another has, for each graph whose inputs depend on the size, one engine that
takes any size and, for sizes that were asked for, one more that knows theirs: `base/guided_step` and `base/guided_step@512x768`. TensorRT
builds the latter for the bundle's usual size unasked. Rows of text stay free in both, so that one engine serves a prompt alone and, with
guidance, beside a negative prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

from costroute_rt.engines.building.example import axis_lengths
from costroute_rt.engines.bundle.bundle import Bundle, ImageSpec
from costroute_rt.error import ConfigError

Size = tuple[int, int]
"""Height and width of an image, in pixels."""

_SIZED = re.compile(r"(.+)@(\d+)x(\d+)")


def fixed_axes(bundle: Bundle) -> dict[str, int]:
    """Lengths of the axes that are always the same: those of one image, where the bundle makes images of one size only.

    An engine that knows all of them has a third fewer nodes, loads in two thirds of the time and takes 7 % less for a guided step of
    the postcard family on two cores. Knowing some of them gains nothing.
    """
    return axis_lengths(bundle) if has_one_size(bundle) else {}


def has_one_size(bundle: Bundle) -> bool:
    """Whether all images of the bundle have the same size, so that its engines need no profile."""
    return not bundle.image.any_size and len(bundle.image.sizes) == 1


def depends_on_size(bundle: Bundle, name: str) -> bool:
    """Whether an input of the graph component/graph grows with the image."""
    component, graph = split_name(name)
    usual = axis_lengths(bundle)
    other = axis_lengths(bundle, size=(2 * bundle.image.height, 2 * bundle.image.width))
    changing = {axis for axis, length in usual.items() if other[axis] != length}
    inputs = bundle.graphs[bundle.graph_path(component, graph)].inputs.values()
    return any(axis in changing for spec in inputs for axis in spec.shape)


def with_size(bundle: Bundle, names: Iterable[str], size: Size) -> list[str]:
    """The same graphs by the names of the engines that know `size`; those that do not depend on it keep theirs.

    Raises ConfigError for a size the bundle cannot make.
    """
    size = check_bundle_size(bundle.image, *size)
    if has_one_size(bundle):
        return list(names)
    return [f"{name}@{size[0]}x{size[1]}" if depends_on_size(bundle, name) else name for name in names]


def check_bundle_size(image: ImageSpec, height: int, width: int) -> Size:
    """Height and width, where the bundle can make such images; raises ConfigError."""
    if (height, width) in image.sizes:
        return height, width
    if not image.any_size:
        known = ", ".join(f"{h}x{w}" for h, w in image.sizes)
        raise ConfigError("height x width", f"{height}x{width}", f"one of the sizes this bundle makes: {known}")
    factor = image.vae_scale_factor
    for name, value, default in (("height", height, image.height), ("width", width, image.width)):
        if not factor <= value <= 2 * default or value % factor:
            raise ConfigError(name, value, f"a multiple of {factor} from {factor} to {2 * default}")
    return height, width


def split_name(name: str) -> tuple[str, str]:
    """component/graph, or component/graph@HEIGHTxWIDTH, as the names of component and graph."""
    component, _, graph = name.partition("/")
    sized = _SIZED.fullmatch(graph)
    return component, sized[1] if sized else graph


def size_of(name: str) -> Size | None:
    """The size an engine of that name knows; None for one of the graph's usual profile."""
    sized = _SIZED.fullmatch(name)
    return (int(sized[2]), int(sized[3])) if sized else None


def known_size(bundle: Bundle, shapes: str) -> Size | None:
    """The size for which an engine was built, by the text in its key; None where it is no profile of this bundle."""
    fixed, size = _fixed_lengths(shapes), fixed_size(shapes)
    if size is None:
        return None
    with suppress(ConfigError):
        check_bundle_size(bundle.image, *size)
        return size if fixed == axis_lengths(bundle, size=size) else None
    return None


def fixed_size(shapes: str) -> Size | None:
    """The size in the text of a key; None where the engine takes several."""
    fixed = _fixed_lengths(shapes)
    return (fixed["image_height"], fixed["image_width"]) if {"image_height", "image_width"} <= fixed.keys() else None


def _fixed_lengths(shapes: str) -> dict[str, int]:
    """Axes of one length in the text of a key, which may tell ranges of others beside them."""
    pairs = (pair.partition("=")[::2] for pair in shapes.split())
    return {axis: int(length) for axis, length in pairs if length.isdecimal()}
