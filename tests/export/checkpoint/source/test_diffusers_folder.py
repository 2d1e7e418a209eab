"""Diffusers folders: found, identified and checked by configurations and headers alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint.source import open_source
from tests.checkpoints import (
    SD15,
    SDXL,
    make_tensors,
    write_json,
    write_lcm_folder,
    write_sd2_folder,
    write_sd15_folder,
    write_sdxl_folder,
    write_weights,
)
from tests.export.checkpoint.source.region import read_parameter
from tests.tensor_file import decode, encode

WRITERS: dict[str, tuple[Callable[..., Path], str, str]] = {
    "sd15": (write_sd15_folder, "sd1", "StableDiffusionPipeline"),
    "sd2": (write_sd2_folder, "sd2", "StableDiffusionPipeline"),
    "lcm": (write_lcm_folder, "sd1", "LatentConsistencyModelPipeline"),
    "sdxl": (write_sdxl_folder, "sdxl", "StableDiffusionXLPipeline"),
}
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("kind", WRITERS)
def test_families_are_told_apart(tmp_path: Path, kind: str) -> None:
    write, family, pipeline = WRITERS[kind]
    found = open_source(write(tmp_path / "my model"))
    assert (found.name, found.family, found.pipeline) == ("my model", family, pipeline)
    is_xl = family == "sdxl"
    assert set(found.networks) == {"unet", "vae", "text_encoder"} | ({"text_encoder_2"} if is_xl else set())
    assert set(found.tokenizers) == {"tokenizer"} | ({"tokenizer_2"} if is_xl else set())
    assert found.force_zeros_for_empty_prompt == is_xl
    assert found.scheduler == json.loads((tmp_path / "my model/scheduler/scheduler_config.json").read_text())


@pytest.mark.parametrize(
    ("dtype", "variant", "shards", "extension"),
    [("F32", None, 1, "safetensors"), ("BF16", "fp16", 3, "safetensors"), ("F16", None, 2, "bin")],
)
def test_regions_point_at_the_weights(tmp_path: Path, dtype: str, variant: str | None, shards: int, extension: str) -> None:
    found = open_source(write_sd15_folder(tmp_path / "a", dtype=dtype, variant=variant, shards=shards, extension=extension))
    for name in ("unet", "vae", "text_encoder"):
        network = found.networks[name]
        assert len(network.files()) == shards
        for parameter, tensor in make_tensors(dict(network.config)).items():
            expected = decode(encode(tensor, dtype)[1], dtype, tensor.shape)
            np.testing.assert_array_equal(read_parameter(network, parameter), expected)


def test_the_wanted_variant_is_taken_where_it_exists(tmp_path: Path) -> None:
    path = write_sd15_folder(tmp_path)
    write_weights(path / "unet", make_tensors(SD15["unet"], seed=1), variant="fp16")
    files = {name: network.files()[0].name for name, network in open_source(path, variant="fp16").networks.items()}
    assert files["unet"] == "diffusion_pytorch_model.fp16.safetensors"
    assert files["vae"] == "diffusion_pytorch_model.safetensors"
    assert ".fp16." not in open_source(path).networks["unet"].files()[0].name
    with pytest.raises(BundleError, match="no weight file of the variant bf16; name one that it has, or none"):
        open_source(path, variant="bf16")


def test_old_names_of_a_vaes_attention_are_read(tmp_path: Path) -> None:
    path = write_sd15_folder(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = make_tensors(SD15["vae"])
    renamed = {}
    for name, tensor in tensors.items():
        part = next((new for new in old if f"attentions.0.{new}." in name), None)
        renamed[name.replace(part, old[part]) if part else name] = tensor
    assert renamed.keys() != tensors.keys()
    write_weights(path / "vae", renamed)
    assert open_source(path).networks["vae"].weights.keys() == tensors.keys()


def test_a_text_encoder_that_a_later_transformers_saved_is_read(tmp_path: Path) -> None:
    path = write_sd15_folder(tmp_path)
    tensors = make_tensors(json.loads((path / "text_encoder/config.json").read_text()))
    write_weights(path / "text_encoder", {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()})
    assert open_source(path).networks["text_encoder"].weights.keys() == tensors.keys()


def test_settings_that_are_orders_to_transformers_are_left_out(tmp_path: Path) -> None:
    path = write_sd15_folder(tmp_path)
    edit(path / "text_encoder/config.json", attn_implementation="stranger/kernels", dtype="load", auto_map={"AutoModel": "evil.Model"})
    config = open_source(path).networks["text_encoder"].config
    assert not {"attn_implementation", "dtype", "auto_map"} & config.keys()
    assert config["hidden_size"] == SD15["text_encoder"]["hidden_size"]


def test_a_prediction_type_that_is_given_replaces_the_files(tmp_path: Path) -> None:
    path = write_sd15_folder(tmp_path)
    assert open_source(path, prediction_type="v_prediction").scheduler["prediction_type"] == "v_prediction"
    with pytest.raises(ConfigError, match="prediction_type is 'v': expected epsilon or v_prediction"):
        open_source(path, prediction_type="v")


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: creativeml-openrail-m\ntags:\n- a\n---\n# Model", "creativeml-openrail-m"),
        ("---\nlicense: other\nlicense_name: 'sai-nc'\n---\n", "sai-nc"),
        ("# Model\nlicense: mit\n", "unknown"),
        ("---\nlicense:\n- mit\n---\n", "unknown"),
    ],
)
def test_the_licence_is_that_of_the_model_card(tmp_path: Path, card: str, expected: str) -> None:
    path = write_sd15_folder(tmp_path / "a")
    (path / "README.md").write_text(card)
    (path / "LICENSE").write_text("text")
    found = open_source(path)
    assert found.license == expected
    assert [each.name for each in found.licenses] == ["LICENSE", "README.md"]


def test_the_links_of_a_hub_cache_are_followed_and_others_refused(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    snapshot, blobs = write_sd15_folder(repository / "snapshots/1"), repository / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    found = open_source(snapshot)
    assert {file.parent for network in found.networks.values() for file in network.files()} == {blobs.resolve()}
    weights = snapshot / UNET
    shutil.copy(weights, tmp_path / "elsewhere")
    weights.unlink()
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="a link out of the checkpoint"):
        open_source(snapshot)


def edit(path: Path, **changes: Any) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def drop(path: Path, name: str) -> None:
    tensors = dict(make_tensors(json.loads((path.parent / "config.json").read_text())))
    del tensors[name]
    write_weights(path.parent, tensors)


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a parameter is missing": (
        lambda path: drop(path / UNET, "conv_out.bias"),
        r"unet: 1 of the 408 parameters of its unet are missing, such as conv_out\.bias; download",
    ),
    "another shape": (
        lambda path: write_weights(path / "unet", make_tensors(SDXL["unet"] | {"block_out_channels": [32, 64, 96]})),
        r"its unet's \S+ has the shape .*, but the configuration needs",
    ),
    "8 bits": (
        lambda path: write_weights(path / "vae", {k: v.astype(np.int8) for k, v in make_tensors(SDXL["vae"]).items()}),
        "its vae's encoder.conv_in.weight is stored as I8; use the checkpoint in float16",
    ),
    "inpainting": (lambda path: edit(path / "unet/config.json", in_channels=9), r"takes 9 channels \(inpainting\)"),
    "a refiner": (lambda path: edit(path / "unet/config.json", projection_class_embeddings_input_dim=48 + 5 * 8), "of a refiner"),
    "a refiner's index": (lambda path: edit(path / "model_index.json", requires_aesthetics_score=True), "it is a refiner"),
    "other sizes": (lambda path: edit(path / "unet/config.json", projection_class_embeddings_input_dim=7), "takes 7 numbers beside text"),
    "other text": (lambda path: edit(path / "unet/config.json", cross_attention_dim=32), "takes text of width 32"),
    "an IP-Adapter": (lambda path: edit(path / "unet/config.json", encoder_hid_dim_type="ip_image_proj"), "has an IP-Adapter"),
    "gated attention": (lambda path: edit(path / "unet/config.json", attention_type="gated"), "attention_type is 'gated'"),
    "endless blocks": (lambda path: edit(path / "unet/config.json", layers_per_block=10**9), "layers_per_block is 1000000000"),
    "blocks of text": (lambda path: edit(path / "unet/config.json", block_out_channels="abc"), "block_out_channels is 'abc'"),
    "endless layers": (lambda path: edit(path / "text_encoder/config.json", num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "another class": (lambda path: edit(path / "vae/config.json", _class_name="AutoencoderKLWan"), "it is a AutoencoderKLWan"),
    "a quantised network": (lambda path: edit(path / "unet/config.json", quantization_config={}), "its weights are quantised"),
    "another pipeline": (lambda path: edit(path / "model_index.json", _class_name="FluxPipeline"), "it holds a FluxPipeline; only"),
    "an inpainting pipeline": (
        lambda path: edit(path / "model_index.json", _class_name="StableDiffusionXLInpaintPipeline"),
        "export the base text-to-image checkpoint instead",
    ),
    "other code": (lambda path: edit(path / "model_index.json", unet=["os", "system"]), "its part unet is"),
    "no second encoder": (lambda path: edit(path / "model_index.json", text_encoder=[None, None]), "its part text_encoder is"),
    "no words": (lambda path: (path / "tokenizer_2/vocab.json").unlink(), "neither vocab.json and merges.txt nor tokenizer.json"),
    "no weights": (lambda path: (path / UNET).unlink(), "it has no weights"),
    "no folder": (lambda path: shutil.rmtree(path / "text_encoder_2"), "this folder of the checkpoint is missing"),
    "cut off": (lambda path: (path / UNET).write_bytes((path / UNET).read_bytes()[:-3]), "it is incomplete or damaged"),
    "a pointer": (lambda path: (path / UNET).write_text("version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"),
    "a web page": (lambda path: (path / "tokenizer/vocab.json").write_text("<!DOCTYPE html>"), "it is a web page"),
    "no index": (lambda path: (path / "model_index.json").unlink(), "it has no model_index.json"),
    "nothing": (shutil.rmtree, "it does not exist"),
}


@pytest.mark.parametrize("problem", WRONG)
def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path: Path, problem: str) -> None:
    path = write_sdxl_folder(tmp_path / "model")
    damage, message = WRONG[problem]
    damage(path)
    with pytest.raises(BundleError, match=message) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_neither_torch_nor_its_libraries_are_imported(tmp_path: Path) -> None:
    path = write_sd15_folder(tmp_path)
    code = "import sys; from pathlib import Path; from costroute_rt.export.checkpoint.source import open_source; "
    code += "open_source(Path(sys.argv[1])); print(sorted({'torch', 'diffusers', 'transformers', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=True)
    assert "torch" not in done.stdout
