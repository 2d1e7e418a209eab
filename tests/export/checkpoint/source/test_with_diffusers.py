"""What is found equals what diffusers loads: every parameter, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.network import Network, Source
from tests.checkpoints import write_lcm_folder, write_sd2_folder, write_sd15_folder, write_sdxl_folder
from tests.export.small_checkpoint import needs_export

pytestmark = needs_export


def assert_same(network: Network, module: Any) -> None:
    import torch

    parameters = dict(module.named_parameters())
    assert network.weights.keys() == parameters.keys()
    dtypes = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    for name, region in network.weights.items():
        with region.file.open("rb") as file:
            file.seek(region.offset)
            data = bytearray(file.read(region.length))
        found = torch.frombuffer(data, dtype=dtypes[region.dtype]).reshape(region.shape)
        found = (found.T if region.is_transposed else found).reshape(parameters[name].shape).float()
        assert torch.equal(found, parameters[name].float()), name


def assert_equals_pipeline(source: Source, pipeline: Any) -> None:
    assert type(pipeline).__name__ == source.pipeline
    for name, network in source.networks.items():
        assert_same(network, getattr(pipeline, name))


@pytest.mark.parametrize("write", [write_sd15_folder, write_sd2_folder, write_lcm_folder, write_sdxl_folder])
def test_a_folder_has_the_parameters_that_diffusers_loads(tmp_path: Path, write: Any) -> None:
    from diffusers import DiffusionPipeline

    path = write(tmp_path / "model")
    pipeline = DiffusionPipeline.from_pretrained(path)
    assert_equals_pipeline(open_source(path), pipeline)
    assert pipeline.tokenizer("a cat").input_ids[0] == pipeline.text_encoder.config.bos_token_id
