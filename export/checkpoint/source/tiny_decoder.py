"""Small decoders of latents: AutoencoderTiny, as diffusers saves it and as its makers publish it (TAESD, TAESDXL)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.diffusers_folder import DIFFUSERS, check_network_class
from costroute_rt.export.checkpoint.source.latent_space import check_name
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from costroute_rt.export.checkpoint.source.opening import check_file
from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from costroute_rt.export.checkpoint.source.parameter.settings import Settings
from costroute_rt.export.checkpoint.source.parameter.tiny import BLOCKS
from costroute_rt.export.checkpoint.source.weights import choose_weights, read_all_weights, read_weights
from costroute_rt.export.checkpoint.weight_file import check_places, find_weight_files, read_config

TINY = "tiny"
_CLASS = "AutoencoderTiny"
_PREFIXES = ("", "decoder.", "taesd_decoder.")
"""What the names of the decoder's parameters may begin with in a file of its makers, or of both halves together."""
_FORMS = "give a folder of an AutoencoderTiny, or a file such as taesd_decoder.safetensors"


def open_tiny_decoder(path: Path, source: Source, *, allow_pickle: bool = False, variant: str | None = None) -> Network:
    """The small decoder at `path`, for the latents of `source`; its encoder is left out.

    path: a folder as diffusers saves it (`madebyollin/taesd`), or a single file: diffusers' weights, or the makers' layout
        (github.com/madebyollin/taesd), whose first layer has no parameters and is not counted in diffusers.
    allow_pickle: also reads files in torch's format (.pth); no code in them runs in either case.
    Shapes do not tell latents of Stable Diffusion 1.x and 2.x from those of XL: the name of the file or repository may, else it is taken
    as the caller says. Raises BundleError for what is not such a decoder, or one of other latents.
    """
    found = _from_folder(path, variant) if path.is_dir() else _from_file(path, allow_pickle)
    weights = choose_weights(found.tensors, parameters(_CLASS, found.config, found.settings), "tiny decoder", path)
    _check_fit(found, source)
    check_name(path, source)
    return Network(name=TINY, class_name=_CLASS, config=found.config, weights=weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Settings and tensors of a decoder, with diffusers' names."""

    config: Mapping[str, Any]
    settings: Path
    """Where the settings are from, for messages."""
    tensors: Mapping[str, Region]


def _from_folder(path: Path, variant: str | None) -> _Found:
    if not (path / "config.json").exists():
        raise BundleError(path, "it has no config.json", _FORMS)
    check_places(path, path)
    config = read_config(path / "config.json")
    check_network_class(path, config, _CLASS)
    tensors = read_all_weights(find_weight_files(path, DIFFUSERS, variant).files)
    return _Found(config=config, settings=path / "config.json", tensors=tensors)


def _from_file(path: Path, allow_pickle: bool) -> _Found:
    check_file(path, allow_pickle=allow_pickle)
    stored = read_weights(path).tensors
    if "decoder.layers.0.weight" in stored:
        tensors = dict(stored)
    else:
        prefix = next((prefix for prefix in _PREFIXES if f"{prefix}1.weight" in stored and f"{prefix}3.conv.0.weight" in stored), None)
        if prefix is None:
            is_encoder = any(f"{name}0.weight" in stored and f"{name}1.conv.0.weight" in stored for name in ("", "encoder."))
            raise BundleError(path, "it is the encoder of a TAESD" if is_encoder else "it holds no tiny decoder", _FORMS)
        tensors = {_new_name(name.removeprefix(prefix)): region for name, region in stored.items() if name.startswith(prefix)}
    return _Found(config=_settings(tensors), settings=path, tensors=tensors)


def _new_name(name: str) -> str:
    """`decoder.layers.2.conv.0.weight` for the makers' `3.conv.0.weight`."""
    place, _, rest = name.partition(".")
    return f"decoder.layers.{int(place) - 1}.{rest}" if place.isdecimal() and place.isascii() and len(place) < 4 else name


def _settings(tensors: Mapping[str, Region]) -> dict[str, Any]:
    """Settings for a file without a configuration: those of TAESD, with widths read from the shape of the first layer."""
    shape = tensors["decoder.layers.0.weight"].shape
    width, latent = shape[:2] if len(shape) == 4 else (0, 0)
    widths = [width] * len(BLOCKS)
    return {
        "_class_name": _CLASS, "act_fn": "relu", "in_channels": 3, "latent_channels": latent, "out_channels": 3,
        "encoder_block_out_channels": widths, "decoder_block_out_channels": widths,
        "num_encoder_blocks": [*reversed(BLOCKS)], "num_decoder_blocks": [*BLOCKS], "upsampling_scaling_factor": 2,
        "upsample_fn": "nearest", "latent_magnitude": 3, "latent_shift": 0.5, "scaling_factor": 1.0, "shift_factor": 0.0,
    }  # fmt: skip


def _check_fit(found: _Found, source: Source) -> None:
    """Raises BundleError for a decoder whose latents have other channels, or another number of pixels, than those of the model's VAE."""
    own, settings = source.networks["vae"].config, Settings(found.config, found.settings)
    channels, wanted = settings.whole("latent_channels", 4), Settings(own, source.path).whole("latent_channels", 4)
    if channels != wanted:
        problem = f"it decodes latents of {channels} channels, and those of {source.name} have {wanted}"
        raise BundleError(found.settings, problem, "use TAESD for Stable Diffusion 1.x and 2.x, TAESDXL for XL")
    steps = len(settings.widths("decoder_block_out_channels", (64,) * len(BLOCKS))) - 1
    pixels = settings.whole("upsampling_scaling_factor", 2, 8) ** steps
    own_pixels = 2 ** (len(Settings(own, source.path).widths("block_out_channels", (64,))) - 1)
    if pixels != own_pixels:
        problem = f"it makes {pixels} pixels of a latent cell along each axis, and the VAE of {source.name} {own_pixels}"
        raise BundleError(found.settings, problem, "use TAESD for Stable Diffusion 1.x and 2.x, TAESDXL for XL")
    settings.only(out_channels=3, scaling_factor=1.0, shift_factor=0.0)
