"""Image sizes that engines are built for, and the lengths of axes that follow from them.

If a bundle has one size, its engines have fixed lengths for all axes. Otherwise each graph has one engine that takes any size; graphs whose
inputs depend on the size may also have engines for single sizes, built on request: `family/base/step` and `family/base/step@512x768`. The
number of texts stays free in both, so that one engine serves a prompt with and without a negative prompt. One call makes one image.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import BATCH_AXES, LONGEST_SIDE_PX, MOST_CHUNKS, TEXT_TOKENS, ImageSpec
from costroute_rt.engines.bundle.name import EngineName, Size, find_graph
from costroute_rt.error import BundleError, ConfigError

AxisRange = tuple[str, int, int, int]
"""Name of a free axis, and its minimum, usual and maximum length."""
PROMPT_TOKENS = 16
"""Usual length of `prompt_tokens`, the tokens of a router's own tokenizer; this axis is never fixed."""


def has_one_size(bundle: Bundle) -> bool:
    """Whether all images of the bundle have the same size."""
    return not bundle.image.any_size and len(bundle.image.sizes) == 1


def check_bundle_size(image: ImageSpec, height: int, width: int) -> Size:
    """(height, width), checked; raises ConfigError if the bundle cannot make images of that size."""
    if (height, width) in image.sizes:
        return height, width
    if not image.any_size:
        known = ", ".join(f"{h}x{w}" for h, w in image.sizes)
        raise ConfigError("height x width", f"{height}x{width}", f"one of the sizes of this bundle: {known}")
    factor = image.vae_scale_factor * image.patch_size
    for name, value, largest in zip(("height", "width"), (height, width), largest_size(image), strict=True):
        if not factor <= value <= largest or value % factor:
            raise ConfigError(name, value, f"a multiple of {factor} from {factor} to {largest}")
    return height, width


def largest_size(image: ImageSpec) -> Size:
    """The largest height and width of a bundle that takes any size: twice the default, within the limit of all images."""
    factor = image.vae_scale_factor * image.patch_size
    most = LONGEST_SIDE_PX // factor * factor
    return min(2 * image.height, most), min(2 * image.width, most)


def axis_lengths(bundle: Bundle, size: Size | None = None) -> dict[str, int]:
    """Lengths of the free axes for one image, by the names that exporters give them.

    size: height and width of the image in pixels; None means the bundle's default.
    """
    image = bundle.image
    height, width = size or (image.height, image.width)
    sides = {"height": height, "width": width}
    pixels = {f"{prefix}_{side}": length for prefix in ("image", "sample") for side, length in sides.items()}
    latent = {f"{prefix}{side}": length // image.vae_scale_factor for prefix in ("", "latent_") for side, length in sides.items()}
    return {**dict.fromkeys(BATCH_AXES, 1), **latent, **pixels, **token_axes(bundle)}


def token_axes(bundle: Bundle) -> dict[str, int]:
    """Lengths of the token axes, by their names in the text encoders and in the graphs that take their outputs.

    `tokens` is the length of the first encoder, for a router that reads its states. Raises BundleError if one name has two lengths.
    """
    found: dict[str, int] = {}

    def note(axis: int | str, length: int) -> None:
        if isinstance(axis, str) and found.setdefault(axis, length) != length:
            problem = f"the axis {axis} of its graphs has {found[axis]} tokens in one graph and {length} in another"
            raise BundleError(bundle.root, problem, "export it again with a different name for each length")

    encoders = [each for each in bundle.components.values() if each.role == "text_encoder"]
    kept: dict[str, int] = {}
    for encoder in encoders:
        tokenizer = bundle.tokenizers[str(encoder.tokenizer)]
        graph = bundle.graphs[encoder.graphs["encode"]]
        note(graph.inputs["input_ids"].shape[1], tokenizer.max_length)
        left = tokenizer.max_length - tokenizer.drop
        kept |= {f"{encoder.name}.{name}": left for name, spec in graph.outputs.items() if len(spec.shape) > 2}
        kept[f"{encoder.tokenizer}.attention_mask"] = left
    for component in bundle.components.values():
        for path in component.graphs.values() if component.role == "denoiser" else ():
            for name, spec in bundle.graphs[path].inputs.items():
                if name in kept:
                    note(spec.shape[1], kept[name])
    if encoders:
        found.setdefault("tokens", bundle.tokenizers[str(encoders[0].tokenizer)].max_length)
    return found


def fixed_axes(bundle: Bundle) -> dict[str, int]:
    """Lengths of the axes that every usual engine fixes: one image, and all other axes if the bundle has one size only.

    With all axes fixed, a guided step of the postcard family has a third fewer nodes, loads in two thirds of the time and is 7 % faster on
    two cores.
    """
    lengths = size_axes(bundle)
    return lengths if has_one_size(bundle) else {axis: lengths[axis] for axis in BATCH_AXES}


def size_axes(bundle: Bundle, size: Size | None = None) -> dict[str, int]:
    """Lengths of the axes that the engines of one image size fix: all but the one that grows with the chunks of a prompt."""
    lengths = axis_lengths(bundle, size)
    return {axis: length for axis, length in lengths.items() if axis != TEXT_TOKENS} if takes_chunks(bundle) else lengths


def takes_chunks(bundle: Bundle) -> bool:
    """Whether all denoisers take the states of several chunks of a prompt: wherever they take them, the axis is `text_tokens`."""
    names = set[str]()
    for encoder in bundle.components.values():
        if encoder.role == "text_encoder" and bundle.tokenizers[str(encoder.tokenizer)].prompt_syntax != "none":
            outputs = bundle.graphs[encoder.graphs["encode"]].outputs.items()
            names |= {f"{encoder.name}.{output}" for output, spec in outputs if len(spec.shape) > 2}
            names |= {f"{encoder.tokenizer}.attention_mask", f"{encoder.tokenizer}.length"}
    denoisers = [each for each in bundle.components.values() if each.role == "denoiser"]
    inputs = [item for each in denoisers for path in each.graphs.values() for item in bundle.graphs[path].inputs.items()]
    return {spec.shape[-1] if len(spec.shape) < 3 else spec.shape[1] for name, spec in inputs if name in names} == {TEXT_TOKENS}


def free_axes(bundle: Bundle) -> tuple[AxisRange, ...]:
    """The ranges of free axes: sides of images, one or two texts, tokens of several chunks, and tokens of a router's own tokenizer."""
    image, sizes = bundle.image, list(bundle.image.sizes)
    factor = image.vae_scale_factor * image.patch_size
    if image.any_size:
        sizes += [(factor, factor), largest_size(image)]
    sides = [axis_lengths(bundle, size) for size in sizes]
    ranges = {
        axis: (min(each[axis] for each in sides), length, max(each[axis] for each in sides))
        for axis, length in axis_lengths(bundle).items()
        if axis not in BATCH_AXES
    }
    if takes_chunks(bundle):
        least, usual, most = ranges[TEXT_TOKENS]
        ranges[TEXT_TOKENS] = least, usual, MOST_CHUNKS * most
    ranges["rows"] = (1, 2, 2)
    if bundle.router is not None and "max_length" in bundle.router:
        most = bundle.router["max_length"]
        ranges["prompt_tokens"] = (1, min(PROMPT_TOKENS, most), most)
    return tuple((axis, *lengths) for axis, lengths in sorted(ranges.items()))


def depends_on_size(bundle: Bundle, name: str) -> bool:
    """Whether an input of the engine's graph depends on the image size."""
    found, image = find_graph(bundle, name), bundle.image
    usual, larger = axis_lengths(bundle), axis_lengths(bundle, (2 * image.height, 2 * image.width))
    changing = {axis for axis, length in usual.items() if larger[axis] != length}
    inputs = bundle.graphs[bundle.graph_path(found.component, found.graph)].inputs.values()
    return any(axis in changing for spec in inputs for axis in spec.shape)


def with_size(bundle: Bundle, names: Iterable[str], size: Size) -> list[str]:
    """Names of the engines of the same graphs for images of `size`; graphs that do not depend on the size keep their usual engine.

    Raises ConfigError for a size that the bundle cannot make.
    """
    size = check_bundle_size(bundle.image, *size)
    if has_one_size(bundle):
        return list(names)
    return [str(EngineName.parse(name)._replace(size=size)) if depends_on_size(bundle, name) else name for name in names]


def known_size(bundle: Bundle, shapes: str) -> Size | None:
    """The single size for which an engine was built, from `shapes` of its key; None if it takes several or is not a size of the bundle."""
    fixed, size = _fixed_lengths(shapes), _fixed_size(shapes)
    if size is None:
        return None
    with suppress(ConfigError):
        check_bundle_size(bundle.image, *size)
        return size if fixed == size_axes(bundle, size) else None
    return None


def _fixed_size(shapes: str) -> Size | None:
    """The image size in the shapes of a key; None if the engine takes several sizes."""
    fixed = _fixed_lengths(shapes)
    return (fixed["image_height"], fixed["image_width"]) if {"image_height", "image_width"} <= fixed.keys() else None


def _fixed_lengths(shapes: str) -> dict[str, int]:
    """The fixed axes in the shapes of a key, which may also contain ranges."""
    pairs = (pair.partition("=")[::2] for pair in shapes.split())
    return {axis: int(length) for axis, length in pairs if length.isdecimal()}
