"""Single files in the layout of A1111 and ComfyUI: family by names, settings by shapes, parameters as regions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source import open_source
from tests.checkpoints import (
    SD2_FILE,
    SD15_FILE,
    SDXL_FILE,
    make_tensors,
    sd2_single_file,
    sd15_single_file,
    sdxl_single_file,
    write_single_file,
)
from tests.export.checkpoint.source.region import read_parameter
from tests.full_size import PUBLISHED, write_full_size
from tests.tensor_file import decode, encode

FILES: dict[str, tuple[Any, Any]] = {
    "sd1": (sd15_single_file, SD15_FILE), "sd2": (sd2_single_file, SD2_FILE), "sdxl": (sdxl_single_file, SDXL_FILE),
}  # fmt: skip
MARKER = np.zeros(1, np.float32)


@pytest.fixture(scope="module")
def tensors() -> dict[str, dict[str, Any]]:
    """The tensors of a file of each family."""
    return {family: make() for family, (make, _) in FILES.items()}


@pytest.mark.parametrize(
    ("family", "suffix", "dtype"), [("sd1", ".ckpt", "F32"), ("sd2", ".safetensors", "BF16"), ("sdxl", ".safetensors", "F16")]
)
def test_every_parameter_is_found_under_its_name_of_today(
    tmp_path: Path, tensors: dict[str, dict[str, Any]], family: str, suffix: str, dtype: str
) -> None:
    path = write_single_file(tmp_path / f"my model{suffix}", tensors[family], dtype=dtype)
    found = open_source(path, allow_pickle=True)
    assert (found.family, found.name, found.path) == (family, "my model", path)
    assert found.networks.keys() == FILES[family][1].keys() - {"scheduler"}
    for name, network in found.networks.items():
        for parameter, tensor in make_tensors(FILES[family][1][name]).items():
            expected = decode(encode(tensor, dtype)[1], dtype, tensor.shape)
            np.testing.assert_array_equal(read_parameter(network, parameter).reshape(tensor.shape), expected, err_msg=parameter)


@pytest.mark.parametrize("family", FILES)
def test_settings_are_those_of_the_file(tmp_path: Path, tensors: dict[str, dict[str, Any]], family: str) -> None:
    found = open_source(write_single_file(tmp_path / "a.safetensors", tensors[family]))
    for name, network in found.networks.items():
        written = FILES[family][1][name]
        told = set(written) - {"sample_size", "projection_dim", "_diffusers_version"}
        assert {key: network.config.get(key) for key in told} == {key: written[key] for key in told}


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_models_are_read_in_half_a_second(tmp_path: Path, family: str) -> None:
    path = write_full_size(tmp_path / "a.safetensors", family)
    began = time.process_time()
    found = open_source(path)
    assert time.process_time() - began < 0.5
    assert found.family == family
    heads = {"sd1": 8, "sd2": [5, 10, 20, 20], "sdxl": [5, 10, 20]}
    assert found.networks["unet"].config["attention_head_dim"] == heads[family]
    assert found.networks["unet"].config["sample_size"] == {"sd1": 64, "sd2": 96, "sdxl": 128}[family]
    encoder = found.networks["text_encoder"].config
    assert (encoder["num_hidden_layers"], encoder["num_attention_heads"]) == {"sd1": (12, 12), "sd2": (23, 16), "sdxl": (12, 12)}[family]
    if family == "sdxl":
        encoder = found.networks["text_encoder_2"].config
        assert (encoder["num_hidden_layers"], encoder["num_attention_heads"], encoder["projection_dim"]) == (32, 20, 1280)


@pytest.mark.parametrize(
    ("family", "others", "metadata", "given", "expected"),
    [
        ("sd1", {}, {}, None, "epsilon"),
        ("sdxl", {}, {}, None, "epsilon"),
        ("sdxl", {}, {}, "v_prediction", "v_prediction"),
        ("sdxl", {"v_pred": MARKER}, {}, None, "v_prediction"),
        ("sdxl", {"v_pred": MARKER}, {}, "epsilon", "epsilon"),
        ("sdxl", {}, {"modelspec.prediction_type": "v"}, None, "v_prediction"),
        ("sd2", {}, {"modelspec.architecture": "stable-diffusion-v2-512"}, None, "epsilon"),
        ("sd2", {}, {}, "epsilon", "epsilon"),
        ("sd2", {}, {}, None, "v_prediction"),
    ],
)
def test_the_prediction_type_is_read_or_given(
    tmp_path: Path, tensors: dict[str, dict[str, Any]], family: str, others: Any, metadata: Any, given: str | None, expected: str
) -> None:
    path = write_single_file(tmp_path / "a.safetensors", tensors[family], metadata=metadata, **others)
    found = open_source(path, prediction_type=given)
    assert found.scheduler["prediction_type"] == expected
    assert "rescale_betas_zero_snr" not in found.scheduler
    is_assumed = family == "sd2" and given is None and not metadata
    assert any("v_prediction is assumed" in note for note in found.notes) == is_assumed
    assert family != "sd2" or found.networks["unet"].config["sample_size"] == (96 if expected == "v_prediction" else 64)


@pytest.mark.parametrize(("family", "scheduler"), [("sd1", "DDIMScheduler"), ("sdxl", "EulerDiscreteScheduler")])
def test_a_marker_of_zero_terminal_snr_sets_the_scheduler(
    tmp_path: Path, tensors: dict[str, dict[str, Any]], family: str, scheduler: str
) -> None:
    found = open_source(write_single_file(tmp_path / "a.safetensors", tensors[family], v_pred=MARKER, ztsnr=MARKER)).scheduler
    assert (found["_class_name"], found["prediction_type"]) == (scheduler, "v_prediction")
    assert (found["rescale_betas_zero_snr"], found["timestep_spacing"]) == (True, "trailing")


def test_a_licence_in_the_metadata_is_kept(tmp_path: Path, tensors: dict[str, dict[str, Any]]) -> None:
    path = write_single_file(tmp_path / "a.safetensors", tensors["sd1"], metadata={"modelspec.license": "CreativeML Open RAIL-M"})
    assert open_source(path).license == "CreativeML Open RAIL-M"


def test_moving_averages_and_other_networks_are_left_out(tmp_path: Path, tensors: dict[str, dict[str, Any]]) -> None:
    averages = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in tensors["sd1"].items() if "diffusion_model" in name}
    path = write_single_file(tmp_path / "a.safetensors", tensors["sd1"], **averages, **{"first_stage_model.loss.logvar": MARKER})
    assert len(open_source(path).networks["unet"].weights) == len(make_tensors(SD15_FILE["unet"]))


def test_a_text_encoder_without_text_model_in_its_names_is_read(tmp_path: Path, tensors: dict[str, dict[str, Any]]) -> None:
    old = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in tensors["sd1"].items()}
    assert old.keys() != tensors["sd1"].keys()
    assert len(open_source(write_single_file(tmp_path / "a.safetensors", old)).networks["text_encoder"].weights) == 36


def test_a_pickle_is_read_only_where_it_is_allowed(tmp_path: Path, tensors: dict[str, dict[str, Any]]) -> None:
    path = write_single_file(tmp_path / "a.ckpt", tensors["sd1"])
    with pytest.raises(BundleError, match=r"it is a pickle of torch.*; use a \.safetensors file of the same model, or allow pickles"):
        open_source(path)
    assert open_source(path, allow_pickle=True).family == "sd1"


UNET, VAE = "model.diffusion_model.", "first_stage_model."
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "inpainting": ({f"{UNET}input_blocks.0.0.weight": np.zeros((64, 9, 3, 3), np.float32)}, r"takes 9 channels \(inpainting\)"),
    "image editing": ({f"{UNET}input_blocks.0.0.weight": np.zeros((64, 8, 3, 3), np.float32)}, r"takes 8 channels \(image editing"),
    "another shape": ({f"{UNET}out.2.bias": np.zeros(5, np.float32)}, r"its unet's conv_out.bias has the shape \(5,\)"),
    "a missing parameter": ({f"{VAE}decoder.norm_out.bias": None}, "1 of the 180 parameters of its vae are missing"),
    "an unknown one": ({f"{UNET}time_embed.cond_proj.weight": MARKER}, r"tensors of its UNet are unknown \(1\), such as .*cond_proj"),
    "a reduced UNet": ({f"{UNET}middle_block.1.proj_in.weight": None}, "a reduced one, such as those of SSD-1B, Segmind Vega"),
    "no rows of three": (
        {"conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight": np.zeros((128, 128), np.float32)},
        "cannot be divided by three",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_files_that_differ_from_their_family_are_refused(tmp_path: Path, tensors: dict[str, dict[str, Any]], name: str) -> None:
    changes, problem = CHANGES[name]
    path = write_single_file(tmp_path / "a.safetensors", tensors["sdxl"], **changes)
    with pytest.raises(BundleError, match=problem) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "prefix", "problem"),
    [
        ("sdxl", "conditioner.embedders.1.", "one of its two text encoders is missing"),
        ("sd1", "cond_stage_model.", "it has no text encoder that is known"),
        ("sd1", "first_stage_model.", "it has no VAE"),
    ],
)
def test_a_file_without_one_of_its_networks_is_refused(
    tmp_path: Path, tensors: dict[str, dict[str, Any]], family: str, prefix: str, problem: str
) -> None:
    rest = {name: tensor for name, tensor in tensors[family].items() if not name.startswith(prefix)}
    with pytest.raises(BundleError, match=f"{problem}.*use a file that holds the whole model, or a diffusers folder"):
        open_source(write_single_file(tmp_path / "a.safetensors", rest))


def test_the_tokenizers_of_the_templates_have_the_words_of_clip() -> None:
    from costroute_rt.export.checkpoint.source.single_file.template import TOKENIZERS

    folders = TOKENIZERS["sdxl"]
    words = json.loads((folders["tokenizer"] / "vocab.json").read_text(encoding="utf-8"))
    assert (len(words), words["!"], words["<|startoftext|>"], words["<|endoftext|>"], words["cat</w>"]) == (49408, 0, 49406, 49407, 2368)
    merges = (folders["tokenizer"] / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert len(merges) == 49408 - 2 * 256 - 2
    assert [words[merge.replace(" ", "")] for merge in merges] == [*range(512, 49406)]
    pads = {name: json.loads((folder / "tokenizer_config.json").read_text())["pad_token"] for name, folder in folders.items()}
    assert pads == {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
