"""A VAE that comes by itself, for a model that has another one."""

from __future__ import annotations

from pathlib import Path

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.diffusers_folder import DIFFUSERS, check_network_class
from costroute_rt.export.checkpoint.source.latent_space import check_name, check_same_latents
from costroute_rt.export.checkpoint.source.network import Network, Source
from costroute_rt.export.checkpoint.source.old_name import rename_attention
from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from costroute_rt.export.checkpoint.source.weights import choose_weights, read_all_weights, read_weights
from costroute_rt.export.checkpoint.weight_file import check_places, find_weight_files, read_config

_CLASS = "AutoencoderKL"
_FORMS = "give a folder of an AutoencoderKL, a pipeline's folder, or a single .safetensors file"


def open_vae(path: Path, source: Source, *, variant: str | None = None) -> Network:
    """The VAE at `path`, with the latents of the model's own.

    path: a folder of a VAE or of a pipeline as diffusers saves it, or a single file with diffusers' names. A single file has no settings:
        it is read with those of the model's own VAE. Shapes do not tell the latents of Stable Diffusion 1.x and 2.x from those of XL: a
        folder's settings do, the name of a file may, else it is taken as the caller says.
    Raises BundleError for what is not a VAE, or one of other latents.
    """
    return _from_folder(path, source, variant) if path.is_dir() else _from_file(path, source)


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


def _from_file(path: Path, source: Source) -> Network:
    config = source.networks["vae"].config
    stored, wanted = read_weights(path).tensors, parameters(_CLASS, config, path)
    if "decoder.conv_in.weight" not in stored:
        raise BundleError(path, "it holds no VAE", _FORMS)
    weights = choose_weights(rename_attention(stored), wanted, "VAE", path)
    check_name(path, source)
    return Network(name="vae", class_name=_CLASS, config=config, weights=weights)
