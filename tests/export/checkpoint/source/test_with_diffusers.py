"""What is found equals what diffusers loads: every parameter, bit by bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.network import Network, Source
from costroute_rt.export.checkpoint.source.weights import read_weights
from tests.checkpoints import (
    write_json,
    write_lcm_folder,
    write_sd2_folder,
    write_sd2_single_file,
    write_sd15_folder,
    write_sd15_single_file,
    write_sdxl_folder,
    write_sdxl_single_file,
)
from tests.export.checkpoint.source.region import read_parameter
from tests.export.small_checkpoint import needs_export
from tests.full_size import PUBLISHED, full_size_tensors, write_full_size

pytestmark = needs_export


def assert_same(network: Network, module: Any) -> None:
    parameters = dict(module.named_parameters())
    assert network.weights.keys() == parameters.keys()
    for name, parameter in parameters.items():
        found = read_parameter(network, name).reshape(tuple(parameter.shape))
        np.testing.assert_array_equal(found, parameter.detach().float().numpy(), err_msg=name)


def assert_equals_pipeline(source: Source, pipeline: Any) -> None:
    assert type(pipeline).__name__ == source.pipeline
    for name, network in source.networks.items():
        assert_same(network, getattr(pipeline, name))


def test_files_of_torch_have_the_parameters_that_diffusers_loads(tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    path = write_sd15_folder(tmp_path / "model", extension="bin")
    assert_equals_pipeline(open_source(path), DiffusionPipeline.from_pretrained(path))


@pytest.mark.parametrize("write", [write_sd15_folder, write_sd2_folder, write_lcm_folder, write_sdxl_folder])
def test_a_folder_has_the_parameters_that_diffusers_loads(tmp_path: Path, write: Any) -> None:
    from diffusers import DiffusionPipeline

    path = write(tmp_path / "model")
    pipeline = DiffusionPipeline.from_pretrained(path)
    assert_equals_pipeline(open_source(path), pipeline)
    assert pipeline.tokenizer("a cat").input_ids[0] == pipeline.text_encoder.config.bos_token_id


def write_settings(source: Source, path: Path) -> Path:
    """A folder with the settings and tokenizers that were found for a single file, and no weights."""
    index: dict[str, Any] = {"_class_name": source.pipeline, "scheduler": ["diffusers", source.scheduler["_class_name"]]}
    for name, network in source.networks.items():
        write_json(path / name / "config.json", network.config)
        index[name] = ["transformers" if network.class_name.startswith("CLIP") else "diffusers", network.class_name]
    for name, folder in source.tokenizers.items():
        shutil.copytree(folder, path / name)
        index[name] = ["transformers", "CLIPTokenizer"]
    write_json(path / "scheduler/scheduler_config.json", source.scheduler)
    write_json(path / "model_index.json", index)
    return path


@pytest.mark.parametrize("write", [write_sd15_single_file, write_sd2_single_file, write_sdxl_single_file])
def test_a_single_file_has_the_parameters_that_diffusers_loads(tmp_path: Path, write: Any) -> None:
    import diffusers

    source = open_source(write(tmp_path / "model.safetensors"))
    kind = getattr(diffusers, source.pipeline)
    settings = write_settings(source, tmp_path / "settings")
    pipeline = kind.from_single_file(str(source.path), config=str(settings), local_files_only=True)
    assert_equals_pipeline(source, pipeline)
    for name in source.tokenizers:
        ids = getattr(pipeline, name)("a photo of a cat", padding="max_length").input_ids
        assert ids[:8] == [49406, 320, 1125, 539, 320, 2368, 49407, 0 if name == "tokenizer_2" or source.family == "sd2" else 49407]
        assert len(ids) == 77


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_models_have_the_parameters_of_their_classes(tmp_path: Path, family: str) -> None:
    """Names and shapes at full size, on the meta device."""
    import diffusers
    import torch
    import transformers
    from accelerate import init_empty_weights

    for name, network in open_source(write_full_size(tmp_path / "a.safetensors", family)).networks.items():
        with init_empty_weights():
            if network.class_name.startswith("CLIP"):
                module: torch.nn.Module = getattr(transformers, network.class_name)(transformers.CLIPTextConfig(**network.config))
            else:
                module = getattr(diffusers, network.class_name).from_config(dict(network.config))
        shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        assert network.weights.keys() == shapes.keys(), name
        for parameter, region in network.weights.items():
            stored = region.shape[::-1] if region.is_transposed else region.shape
            assert [axis for axis in stored if axis > 1] == [axis for axis in shapes[parameter] if axis > 1]


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_files_are_renamed_as_diffusers_does(tmp_path: Path, family: str) -> None:
    import torch
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    path = write_full_size(tmp_path / "a.safetensors", family)
    source = open_source(path)
    stored = {name: torch.empty(tensor.shape, device="meta") for name, tensor in full_size_tensors(family).items()}
    offsets = {name: region.offset for name, region in read_weights(path).tensors.items()}
    for name, convert in (("unet", convert_ldm_unet_checkpoint), ("vae", convert_ldm_vae_checkpoint)):
        network, names = source.networks[name], {id(tensor): name for name, tensor in stored.items()}
        for parameter, tensor in convert(stored, dict(network.config)).items():
            if id(tensor) in names:  # not a new view, such as that of a convolution of 1x1
                assert network.weights[parameter].offset == offsets[names[id(tensor)]], parameter
