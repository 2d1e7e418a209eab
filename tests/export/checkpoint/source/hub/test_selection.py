from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.export.checkpoint.source.hub.selection import (
    SelectionError,
    all_weights,
    select_file,
    select_network,
    select_pipeline,
)

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": [None, None],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "force_zeros_for_empty_prompt": True,
}
SETTINGS = ["model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"]
WORDS = ["tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"]
WEIGHTS = ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
OTHERS = ["safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json", "unet/model.onnx", "unet/openvino_model.bin"]
OTHERS += ["unet/diffusion_flax_model.msgpack", "vae_encoder/config.json", "text_encoder_2/model.safetensors", "v1-5.ckpt", "a.png"]
OTHERS += [
    ".gitattributes",
    "unet/diffusion_pytorch_model.bin",
    "text_encoder/pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
]
NAMES = frozenset([*SETTINGS, *WORDS, *WEIGHTS, *OTHERS, "README.md", "LICENSE.txt"])


def test_a_pipeline_needs_its_networks_tokenizers_scheduler_and_licences() -> None:
    selection = select_pipeline(NAMES, INDEX, None)
    assert {*selection.first} == {*SETTINGS, *WORDS, "README.md", "LICENSE.txt"}
    assert [*selection.weights] == WEIGHTS
    assert selection.indexes == ()


def test_an_index_brings_the_files_that_it_lists(tmp_path: Path) -> None:
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    parts = ["unet/diffusion_pytorch_model-00001-of-00002.safetensors", "unet/diffusion_pytorch_model-00002-of-00002.safetensors"]
    names = NAMES - {WEIGHTS[0], *OTHERS} | {index, *parts}
    (tmp_path / "unet").mkdir()
    (tmp_path / index).write_text(json.dumps({"weight_map": {"a": parts[0][5:], "b": parts[1][5:], "c": parts[0][5:]}}))
    selection = select_pipeline(names, INDEX, None)
    assert index in selection.first
    assert all_weights(selection, names, tmp_path.joinpath) == (*WEIGHTS[1:], *parts)
    with pytest.raises(SelectionError, match="lacks unet/diffusion_pytorch_model-00002"):
        all_weights(selection, names - {parts[1]}, tmp_path.joinpath)


@pytest.mark.parametrize(
    ("missing", "problem"),
    [("unet/config.json", "no unet/config.json"), (WEIGHTS[1], "no weights vae/"), ("tokenizer/merges.txt", "no tokenizer/merges.txt")],
)
def test_incomplete_pipelines_are_refused(missing: str, problem: str) -> None:
    with pytest.raises(SelectionError, match=problem):
        select_pipeline(NAMES - {missing}, INDEX, None)


def test_a_variant_that_no_network_has_is_refused() -> None:
    with pytest.raises(SelectionError, match="no weights of the variant bf16; name a variant that it has"):
        select_pipeline(NAMES, INDEX, "bf16")
    assert select_pipeline(NAMES, INDEX, "fp16").weights[0] == "unet/diffusion_pytorch_model.fp16.safetensors"


def test_a_folder_of_one_network_is_taken_without_its_single_files() -> None:
    names = ["config.json", "diffusion_pytorch_model.safetensors", "sdxl_vae.safetensors", "README.md"]
    selection = select_network(names, None)
    assert selection is not None
    assert (selection.first, selection.weights) == (("config.json", "README.md"), ("diffusion_pytorch_model.safetensors",))
    assert select_network(["config.json", "sdxl_vae.safetensors"], None) is None


def test_single_files_are_named_or_alone() -> None:
    names = ["README.md", "b.safetensors", "a/c.safetensors"]
    assert select_file(names, None, "o/n").file == "b.safetensors"
    assert select_file(names, "a/c.safetensors", "o/n").weights == ("a/c.safetensors",)
    with pytest.raises(SelectionError, match=r"no file d\.safetensors; choose one of its files: a/c\.safetensors, b\.safetensors"):
        select_file(names, "d.safetensors", "o/n")
    with pytest.raises(
        SelectionError, match=r"files a/c\.safetensors, b\.safetensors, z\.safetensors; name one of them: o/n/b\.safetensors"
    ):
        select_file([*names, "z.safetensors"], None, "o/n")
    with pytest.raises(SelectionError, match="nor safetensors files"):
        select_file(["README.md", "model.ckpt"], None, "o/n")
