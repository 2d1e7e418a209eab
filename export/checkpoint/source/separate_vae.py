"""A VAE that comes by itself, for a model that has another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.diffusers_folder import DIFFUSERS, check_network_class
from costroute_rt.export.checkpoint.source.latent_space import check_name, check_same_latents
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from costroute_rt.export.checkpoint.source.old_name import rename_attention
from costroute_rt.export.checkpoint.source.opening import check_file
from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from costroute_rt.export.checkpoint.source.single_file.stored import Stored
from costroute_rt.export.checkpoint.source.single_file.vae import PREFIX, find_vae, vae_settings
from costroute_rt.export.checkpoint.source.weights import choose_weights, read_all_weights, read_weights
from costroute_rt.export.checkpoint.weight_file import check_places, find_weight_files, read_config

_CLASS = "AutoencoderKL"
_PREFIXES = (PREFIX, "vae.", "")
_FORMS = "give a folder of an AutoencoderKL, a pipeline's folder, or a single .safetensors file"


def open_vae(path: Path, source: Source, *, allow_pickle: bool = False, variant: str | None = None) -> Network:
    """The VAE at `path`, with the latents of the model's own.

    path: a folder of a VAE or of a pipeline as diffusers saves it; or a single file of a VAE or of a whole model, in the layout of A1111 or
        with diffusers' names. A file has no settings: those of the model's own VAE are taken for what its shapes do not tell.
        Shapes do not tell latents of Stable Diffusion 1.x and 2.x from those of XL: a folder's settings do, the name of a file may, else
        it is taken as the caller says.
    allow_pickle: also reads files in torch's format (.ckpt, .pt); no code in them runs in either case.
    Raises BundleError for what is not a VAE, or one of other latents.
    """
    return _from_folder(path, source, variant) if path.is_dir() else _from_file(path, source, allow_pickle)


def _from_folder(path: Path, source: Source, variant: str | None) -> Network:
    folder = path if (path / "config.json").exists() else path / "vae"
    if not (folder / "config.json").exists():
        raise BundleError(path, "it has neither config.json nor vae/config.json", _FORMS)
    check_places(folder, path)
    config = read_config(folder / "config.json")
    check_network_class(folder, config, _CLASS)
    wanted = parameters(_CLASS, config, folder / "config.json")
    check_same_latents(config, source, folder)
    found = rename_attention(read_all_weights(find_weight_files(folder, DIFFUSERS, variant).files))
    return Network(name="vae", class_name=_CLASS, config=config, weights=choose_weights(found, wanted, "VAE", folder))


def _from_file(path: Path, source: Source, allow_pickle: bool) -> Network:
    check_file(path, allow_pickle=allow_pickle)
    stored, config = _select(read_weights(path).tensors, path), dict(source.networks["vae"].config)
    is_original = "decoder.mid.block_1.conv1.weight" in stored
    if is_original:
        config |= vae_settings(stored)
    wanted = parameters(_CLASS, config, path)
    check_same_latents(config, source, path)
    found = find_vae(stored, wanted, config) if is_original else rename_attention(stored.tensors)
    weights = choose_weights(found, wanted, "VAE", path)
    check_name(path, source)
    return Network(name="vae", class_name=_CLASS, config=config, weights=weights)


def _select(tensors: Mapping[str, Region], path: Path) -> Stored:
    """The tensors of the VAE in a file of one, or of a whole model; raises BundleError if there are none."""
    prefix = next((prefix for prefix in _PREFIXES if f"{prefix}decoder.conv_in.weight" in tensors), None)
    if prefix is None:
        raise BundleError(path, "it holds no VAE", _FORMS)
    return Stored.select(tensors, prefix, path)
