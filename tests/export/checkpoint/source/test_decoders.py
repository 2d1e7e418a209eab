"""A VAE and a small decoder of choice: found in the forms that they have, refused for other latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.decoders import with_decoders
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from tests.checkpoints import (
    SD15,
    SDXL,
    make_tensors,
    write_json,
    write_sd15_folder,
    write_sd15_single_file,
    write_sdxl_folder,
    write_weights,
)
from tests.ldm_layout import vae_to_ldm
from tests.tensor_file import Tensors, decode, write_safetensors
from tests.torch_file import write_torch_file

TINY = {
    "_class_name": "AutoencoderTiny",
    "latent_channels": 4,
    "decoder_block_out_channels": [64] * 4,
    "num_decoder_blocks": [3, 3, 3, 1],
    "encoder_block_out_channels": [64] * 4,
    "num_encoder_blocks": [1, 3, 3, 3],
    "scaling_factor": 1.0,
}


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(write_sd15_folder(tmp_path_factory.mktemp("models") / "sd15"))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(write_sdxl_folder(tmp_path_factory.mktemp("models") / "sdxl"))


def values(network: Network) -> Tensors:
    return {name: read_region(region) for name, region in network.weights.items()}


def read_region(region: Region) -> np.ndarray:  # type: ignore[type-arg]
    with region.file.open("rb") as file:
        file.seek(region.offset)
        return decode(file.read(region.length), region.dtype, region.shape)


def assert_same(network: Network, expected: Tensors) -> None:
    found = values(network)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def tiny_tensors() -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return dict(make_tensors(TINY, seed=1))


def original_names(tensors: Tensors) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """As TAESD's own files name them: the first layer has no parameters, and is counted."""
    split = {name: name.removeprefix("decoder.layers.").partition(".") for name in tensors}
    return {f"{int(split[name][0]) + 1}.{split[name][2]}": tensor for name, tensor in tensors.items()}


def write_tiny_folder(path: Path, tensors: Tensors) -> Path:
    write_json(path / "config.json", TINY)
    write_weights(path, {**tensors, "encoder.layers.0.weight": np.zeros((64, 3, 3, 3), np.float32)}, dtype="F32")
    return path


def write_diffusers_file(path: Path, tensors: Tensors) -> Path:
    return write_safetensors(path / "diffusion_pytorch_model.safetensors", tensors)


def write_original(path: Path, tensors: Tensors) -> Path:
    return write_safetensors(path / "taesd_decoder.safetensors", original_names(tensors))


def write_both_halves(path: Path, tensors: Tensors) -> Path:
    named = {f"taesd_decoder.{name}": tensor for name, tensor in original_names(tensors).items()}
    return write_safetensors(path / "taesd.safetensors", {**named, "taesd_encoder.0.weight": np.zeros((64, 3, 3, 3), np.float32)})


@pytest.mark.parametrize("write", [write_tiny_folder, write_diffusers_file, write_original, write_both_halves])
def test_a_tiny_decoder_is_read_in_every_form(write: Callable[[Path, Tensors], Path], sd15: Source, tmp_path: Path) -> None:
    tensors = tiny_tensors()
    network = with_decoders(sd15, tiny=write(tmp_path / "tiny", tensors)).networks["tiny"]
    assert (network.name, network.class_name) == ("tiny", "AutoencoderTiny")
    assert {key: network.config[key] for key in TINY} == TINY
    assert_same(network, tensors)


@pytest.mark.parametrize(
    ("name", "is_xl", "problem"),
    [
        ("taesdxl_decoder.safetensors", False, "by its name it is for latents of Stable Diffusion XL, and sd15 is a model of Stable"),
        ("taesd_decoder.safetensors", True, "by its name it is for latents of Stable Diffusion 1.x and 2.x, and sdxl is a model of"),
        ("taesdxl_decoder.safetensors", True, None),
        ("models--madebyollin--taesdxl/snapshots/0/tiny.safetensors", False, "by its name it is for latents of Stable Diffusion XL"),
        ("decoder.safetensors", True, None),
    ],
)
def test_names_tell_what_shapes_do_not(name: str, is_xl: bool, problem: str | None, sd15: Source, sdxl: Source, tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / name, original_names(tiny_tensors()))
    source = sdxl if is_xl else sd15
    if problem is None:
        assert "tiny" in with_decoders(source, tiny=path).networks
        return
    with pytest.raises(BundleError, match=problem):
        with_decoders(source, tiny=path)


def drop(tensors: Tensors, name: str) -> Tensors:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"0.weight": np.zeros((64, 3, 3, 3), np.float32), "1.conv.0.weight": np.zeros(1, np.float32)}, "it is the encoder of a TAESD"),
        ({"a": np.zeros(1, np.float32)}, "it holds no tiny decoder; give a folder of an AutoencoderTiny, or a file such as"),
        (drop(original_names(tiny_tensors()), "10.conv.2.bias"), "parameters of its tiny decoder are missing"),
        (
            original_names(tiny_tensors()) | {"1.weight": np.zeros((64, 16, 3, 3), np.float32)},
            "latents of 16 channels, and those of sd15 have 4",
        ),
        (original_names(tiny_tensors()) | {"1.weight": np.zeros(4, np.float32)}, "expected a list of 1 to 8 widths"),
        (original_names(tiny_tensors()) | {"3.conv.0.weight": np.zeros((64, 32, 3, 3), np.float32)}, "has the shape"),
    ],
)
def test_other_files_are_no_tiny_decoder(tensors: Tensors, problem: str, sd15: Source, tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "decoder.safetensors", tensors)
    with pytest.raises(BundleError, match=problem):
        with_decoders(sd15, tiny=path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"_class_name": "AutoencoderKL"}, "it is a AutoencoderKL"),
        ({"num_decoder_blocks": [3, 3, 1], "decoder_block_out_channels": [64] * 3}, "makes 4 pixels of a latent cell along each axis"),
        ({"decoder_block_out_channels": [64, 64, 64, 32]}, "equal widths"),
        ({"scaling_factor": 0.5}, "scaling_factor is 0.5"),
        ({"num_decoder_blocks": "3"}, "num_decoder_blocks is"),
    ],
)
def test_other_settings_are_refused(changes: dict[str, object], problem: str, sd15: Source, tmp_path: Path) -> None:
    path, config = tmp_path / "tiny", TINY | changes
    write_tiny_folder(
        path, make_tensors(config) if "num_decoder_blocks" in changes and "decoder_block_out_channels" in changes else tiny_tensors()
    )
    write_json(path / "config.json", config)
    with pytest.raises(BundleError, match=problem):
        with_decoders(sd15, tiny=path)


def test_a_vae_is_read_from_its_folder_a_pipeline_or_a_file(sd15: Source, tmp_path: Path) -> None:
    other = write_sd15_folder(tmp_path / "other", seed=7, dtype="F32")
    expected = values(open_source(other).networks["vae"])
    file = other / "vae" / "diffusion_pytorch_model.safetensors"
    for path in (other, other / "vae", file):
        found = with_decoders(sd15, vae=path)
        assert_same(found.networks["vae"], expected)
        assert found.networks["unet"] is sd15.networks["unet"]
    assert found.networks["vae"].config == sd15.networks["vae"].config


@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae.", ""])
def test_a_vae_is_read_in_the_layout_of_a1111_and_comfyui(prefix: str, sd15: Source, tmp_path: Path) -> None:
    expected = make_tensors(SD15["vae"], seed=3)
    named = {f"{prefix}{name.removeprefix('first_stage_model.')}": tensor for name, tensor in vae_to_ldm(expected).items()}
    network = with_decoders(sd15, vae=write_safetensors(tmp_path / "vae.safetensors", named)).networks["vae"]
    found = {name: tensor.reshape(expected[name].shape) for name, tensor in values(network).items()}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert network.config["scaling_factor"] == 0.18215


def test_the_vae_of_a_whole_model_is_taken(sd15: Source, tmp_path: Path) -> None:
    path = write_sd15_single_file(tmp_path / "model.safetensors")
    expected = open_source(path).networks["vae"]
    assert with_decoders(sd15, vae=path).networks["vae"].weights == expected.weights


def test_pickles_are_read_where_they_are_allowed(sd15: Source, tmp_path: Path) -> None:
    tensors, vae = tiny_tensors(), vae_to_ldm(make_tensors(SD15["vae"], seed=3))
    tiny_file = write_torch_file(tmp_path / "taesd_decoder.pth", original_names(tensors))
    vae_file = write_torch_file(tmp_path / "vae-ft-mse-840000-ema-pruned.ckpt", vae, inside="state_dict")
    found = with_decoders(sd15, vae=vae_file, tiny=tiny_file, allow_pickle=True)
    assert_same(found.networks["tiny"], tensors)
    for given in ({"vae": vae_file}, {"tiny": tiny_file}):
        with pytest.raises(BundleError, match="it is a pickle of torch"):
            with_decoders(sd15, **given)


def test_a_vae_of_other_latents_is_refused(sd15: Source, sdxl: Source, tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"its latents are not those of sd15: scaling_factor is 0\.13025, and 0\.18215 there; use a VAE of"
    ):
        with_decoders(sd15, vae=sdxl.path / "vae")
    config = SDXL["vae"] | {"latent_channels": 16}
    write_json(tmp_path / "vae" / "config.json", config)
    write_weights(tmp_path / "vae", make_tensors(config))
    with pytest.raises(BundleError, match="latent_channels is 16, and 4 there"):
        with_decoders(sdxl, vae=tmp_path)
    with pytest.raises(BundleError, match=r"its VAE's encoder\.conv_out\.weight has the shape"):
        with_decoders(sdxl, vae=tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    wide = vae_to_ldm(make_tensors(config))
    with pytest.raises(BundleError, match="latent_channels is 16, and 4 there"):
        with_decoders(sdxl, vae=write_safetensors(tmp_path / "wide.safetensors", wide))
    named = (tmp_path / "sdxl_vae.safetensors").resolve()
    named.write_bytes((sd15.path / "vae" / "diffusion_pytorch_model.safetensors").read_bytes())
    with pytest.raises(BundleError, match="by its name it is for latents of Stable Diffusion XL"):
        with_decoders(sd15, vae=named)


def test_what_is_no_vae_is_refused(sd15: Source, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    file = write_safetensors(tmp_path / "lora.safetensors", {"a": np.zeros(1, np.float32)})
    tiny = write_tiny_folder(tmp_path / "tiny", tiny_tensors())
    for path, problem in ((tmp_path / "empty", "neither config.json"), (file, "holds no VAE"), (tiny, "it is a AutoencoderTiny")):
        with pytest.raises(BundleError, match=problem):
            with_decoders(sd15, vae=path)
    with pytest.raises(BundleError, match=r"missing\.safetensors: it is missing"):
        with_decoders(sd15, vae=tmp_path / "missing.safetensors")
